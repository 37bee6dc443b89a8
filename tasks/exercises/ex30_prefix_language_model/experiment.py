"""Measures 21.30: limits of the mask, losses after a prefix by model and reading, and completions of paragraphs."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from minigpt.decoding.prefix import complete, suffix_losses
from minigpt.decoding.sampling import GREEDY, Sampling
from minigpt.evaluation.cloze import completed, words_after
from minigpt.evaluation.words import letters_of_words
from minigpt.masks import causal_mask, prefix_mask
from minigpt.model import GPT
from minigpt.objectives import prefix as prefix_objective
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.exercises.ex30_prefix_language_model.findings import READINGS, WRONG, Completion, Findings, Limits, Words
from tasks.parts import part
from tasks.recipes.catalogue import STUDY_LONG, STUDY_PREFIX, STUDY_PREFIX_CONTROL
from tasks.study import variants

TRAINED = {"causal": STUDY_LONG, "prefix": STUDY_PREFIX, "control": STUDY_PREFIX_CONTROL}
TEMPERATURE = 0.8
SHORTEST, GIVEN = 4, 16  # letters of a word that is to be completed; tokens of a short view of what stands before it


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    rows = variants(ctx, TRAINED)
    return replace(ahead(ctx), rows=tuple(rows))


def ahead(ctx: Context) -> Findings:
    """See ``Exercise.ahead``: all but the rows, whose steps are timed."""
    return part(ctx, Findings, "all but the rows", lambda: untimed(ctx))


def untimed(ctx: Context) -> Findings:
    """Everything but the rows."""
    trained = {label: [ctx.model(recipe, seed) for seed in ctx.seeds(recipe)] for label, recipe in TRAINED.items()}
    models = {label: [one.model for one in seeds] for label, seeds in trained.items()}
    context = models["causal"][0].config.context
    windows = contiguous(ctx.tokens(STUDY_PREFIX), context, ctx.numbers["windows"])
    prefixes, half = sorted({1, *(round(context * share) for share in ctx.numbers["shares"])}), context // 2
    found = limits(models["prefix"][0], windows[:1])
    losses = suffix_table(models, windows, prefixes)
    ctx.progress(0.6, "suffixes scored")
    as_trained = (("causal", False), ("prefix", True))  # and whether the prefix is bidirectional
    return Findings(
        rows=(),
        context=context,
        windows=len(windows),
        masks={prefix: tuple(map(tuple, prefix_mask(10, prefix).tolist())) for prefix in (0, 4, 10)},
        limits=found,
        limits_prefix=windows.shape[1] // 2,
        losses=losses,
        seeds={label: tuple(one.recipe.seed for one in trained[label]) for label, _ in as_trained},
        choices={
            label: tuple(choices(model, windows, half, bidirectional=opened) for model in models[label])
            for label, opened in as_trained
        },
        by_distance={label: by_distance(models[label], windows, half, opened=opened) for label, opened in as_trained},
        words=words({label: trained[label] for label, _ in as_trained}, windows, half),
        completions=completions(ctx, {label: trained[label][0] for label, _ in as_trained}, windows, half),
        temperature=TEMPERATURE,
        mask_source=inspect.getsource(prefix_mask),
        objective_source=inspect.getsource(prefix_objective),
    )


@torch.inference_mode()
def limits(model: GPT, window: Tensor) -> Limits:
    """The two limits and the absence of leaks, on (1, T + 1) tokens."""
    tokens, T, P = window[:, :-1], window.shape[1] - 1, window.shape[1] // 2
    full = torch.ones(T, T, dtype=torch.bool, device=tokens.device)
    # P = 0 as a number is no mask at all, as a tensor it is one: each against its like, as kernels differ in rounding.
    zero = torch.zeros(1, dtype=torch.long, device=tokens.device)
    unmasked = (model(tokens, prefix=0) - model(tokens)).abs().max()
    masked = (model(tokens, prefix=zero) - model(tokens, mask=causal_mask(T, device=tokens.device))).abs().max()
    everything = (model(tokens, prefix=T) - model(tokens, mask=full)).abs().max()
    before = model(tokens, prefix=P)[0]
    leaks = {False: 0, True: 0}
    for target in range(1, T):
        altered = tokens.clone()
        altered[0, target] = (altered[0, target] + 1) % model.config.vocab_size
        changed = bool((model(altered, prefix=P)[0, target - 1] != before[target - 1]).any())
        leaks[target < P] += changed
    prompt, grown = tokens[:, :P], tokens[:, :P]
    for _ in range(T - P):
        grown = torch.cat([grown, model(grown, prefix=P)[:, -1:].argmax(dim=-1)], dim=1)
    cached = complete(model, prompt, T - P, sampling=GREEDY)
    causal = max(float(unmasked), float(masked))
    return Limits(causal, float(everything), leaks[False], leaks[True], int((cached != grown).sum()))


def contiguous(tokens: Tensor, context: int, count: int) -> Tensor:
    """The first ``count`` windows of T + 1 tokens that share their boundary, (B, T + 1)."""
    return tokens.unfold(0, context + 1, context)[:count]


def suffix_table(
    models: Mapping[str, Sequence[GPT]], windows: Tensor, prefixes: Sequence[int]
) -> dict[str, dict[int, tuple[float, ...]]]:
    """Mean suffix loss: reading → prefix → one value per seed."""
    return {
        reading: {
            prefix: tuple(
                suffix_losses(model, windows, prefix, bidirectional=opened).double().mean().item()
                for model in models[label]
            )
            for prefix in prefixes
        }
        for reading, (label, opened) in READINGS.items()
    }


def choices(model: GPT, windows: Tensor, prefix: int, *, bidirectional: bool, wrong: int = WRONG) -> float:
    """Share of windows whose own continuation is likelier than ``wrong`` others; chance is 1 / (1 + wrong)."""
    scores = []
    for shift in range(wrong + 1):
        candidate = torch.cat([windows[:, :prefix], windows.roll(shift, 0)[:, prefix:]], dim=1)
        scores.append(suffix_losses(model, candidate, prefix, bidirectional=bidirectional).sum(dim=1))
    return float((torch.stack(scores).argmin(dim=0) == 0).double().mean())


def by_distance(models: Sequence[GPT], windows: Tensor, prefix: int, *, opened: bool) -> tuple[float, ...]:
    """Mean loss of the first, second, … token after the prefix, over windows and seeds."""
    losses = [suffix_losses(model, windows, prefix, bidirectional=opened).double().mean(dim=0) for model in models]
    return tuple(torch.stack(losses).mean(dim=0).tolist())


def words(models: Mapping[str, Sequence[TrainedModel]], windows: Tensor, prefix: int) -> Words:
    """Words after the prefix, completed by each model, given all before them and given the last few tokens."""
    tokenizer = models["causal"][0].tokenizer
    is_letter = torch.tensor([letters_of_words(tokenizer.decode([i])) for i in range(tokenizer.vocab_size)])
    is_letter = is_letter.to(windows.device)
    asked = words_after(windows, is_letter, prefix, SHORTEST)
    given = min(GIVEN, prefix)

    def share(model: GPT, label: str, given: int | None) -> float:
        opened = (given or prefix) if label == "prefix" else 0
        right = completed(model, windows, asked, prefix=opened, given=given)
        return sum(right) / max(1, len(right))

    after_all, after_little = (
        {label: tuple(share(one.model, label, n) for one in seeds) for label, seeds in models.items()}
        for n in (None, given)
    )
    return Words(len(asked), SHORTEST, given, after_all, after_little)


def completions(
    ctx: Context, models: Mapping[str, TrainedModel], windows: Tensor, prefix: int
) -> tuple[Completion, ...]:
    """The same paragraphs continued by all models with the same random numbers, beside the original."""
    written = []
    for place in range(ctx.numbers["samples"]):
        window = windows[place * len(windows) // ctx.numbers["samples"]]
        for label, trained in models.items():
            text = complete(
                trained.model,
                window[None, :prefix],
                len(window) - prefix,
                bidirectional=label == "prefix",
                sampling=Sampling(TEMPERATURE),
                generator=ctx.generator(f"sample {place}"),
            )[0]
            decode = trained.tokenizer.decode
            pieces = (text[:prefix], text[prefix:], window[prefix:])
            written.append(
                Completion(place + 1, label, trained.recipe.seed, *(decode(piece.tolist()) for piece in pieces))
            )
    return tuple(written)


EXERCISE = Exercise(
    measure=measure,
    recipes=tuple(TRAINED.values()),
    numbers={
        "smoke": {"windows": 40, "shares": (0.25, 0.5, 0.75), "samples": 1},
        "laptop": {"windows": 120, "shares": (0.125, 0.25, 0.5, 0.75), "samples": 3},
        "gpu": {"windows": 1000, "shares": (0.125, 0.25, 0.5, 0.75), "samples": 3},
    },
    timed=True,
    ahead=ahead,
    seconds={"smoke": 0.5, "laptop": 2, "gpu": 2},
    seconds_ahead={"smoke": 1, "laptop": 27, "gpu": 8},
)
