"""Measures 21.33: losses by head, texts by the first head, and how far the other heads' drafts hold."""

import copy
import inspect
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from minigpt.decoding.sampling import GREEDY, Sampling, generate
from minigpt.decoding.self_speculation import SelfSpeculation, self_speculate
from minigpt.evaluation import timing
from minigpt.evaluation.entropy import unigram_loss
from minigpt.evaluation.future_heads import score_heads
from minigpt.evaluation.words import share_of_real_words, words
from minigpt.model import GPT
from minigpt.objectives import OBJECTIVES, multi_token
from minigpt.train import TrainConfig, train
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.exercises.ex33_multi_token_prediction.findings import SUMMED, Drafting, Findings, Run, Scores
from tasks.parts import part
from tasks.recipes.catalogue import STUDY_FUTURE_2, STUDY_FUTURE_4, STUDY_FUTURE_4_SUM, STUDY_FUTURE_8, STUDY_ROPE
from tasks.study import variants

HEADS = {
    "N = 1": STUDY_ROPE,
    "N = 2": STUDY_FUTURE_2,
    "N = 4": STUDY_FUTURE_4,
    "N = 8": STUDY_FUTURE_8,
}
TRAINED = HEADS | {SUMMED: STUDY_FUTURE_4_SUM}
TEMPERATURE = 0.8
UNTIMED = timing.Timing(0.0, 0.0, 0.0, 0)  # of a draft whose time is still to be taken


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    rows, found = variants(ctx, TRAINED), ahead(ctx)
    return replace(found, variants=tuple(rows), drafts=tuple(timed(ctx, drafting) for drafting in found.drafts))


def ahead(ctx: Context) -> Findings:
    """See ``Exercise.ahead``: all but the variants, whose steps are timed, and the times of drafted texts."""
    return part(ctx, Findings, "all but times", lambda: untimed(ctx))


def untimed(ctx: Context) -> Findings:
    """Everything but times."""
    n = ctx.numbers
    trained = {label: [ctx.model(recipe, seed) for seed in ctx.seeds(recipe)] for label, recipe in TRAINED.items()}
    first = {label: seeds[0].model for label, seeds in trained.items()}
    tokens, context = ctx.tokens(STUDY_ROPE), first["N = 1"].config.context
    scores = {label: tuple(score(one.model, tokens) for one in seeds) for label, seeds in trained.items()}
    ctx.progress(0.3, "heads scored")
    text = ctx.tokens(STUDY_ROPE, "train")[:5000].cpu()
    plain, single = (
        weights_after(first["N = 1"], text, n["check_steps"], objective) for objective in ("causal", "multi_token")
    )
    starts = torch.arange(n["texts"]) * context
    prompts = torch.stack([tokens[start : start + context // 2] for start in starts.tolist()])
    vocabulary = frozenset(words(ctx.text("train")))
    texts = {label: first_head_texts(ctx, trained[label], prompts) for label in HEADS}
    ctx.progress(0.6, "texts written")
    openings = openings_of(ctx)
    return Findings(
        variants=(),
        configs={label: model.config for label, model in first.items()},
        scores=scores,
        check_steps=n["check_steps"],
        differing_weights=sum(int((a != b).sum()) for a, b in zip(plain, single, strict=True)),
        gradient_difference=gradient_difference(first["N = 4"], tokens),
        unigram_loss=unigram_loss(ctx.tokens(STUDY_ROPE, "train"), tokens, first["N = 4"].config.vocab_size),
        known_words={
            label: tuple(share_of_real_words(lines, vocabulary, cut_start=True) for lines in seeds)
            for label, seeds in texts.items()
        },
        texts={label: seeds[0][0] for label, seeds in texts.items()},
        prompt=trained["N = 1"][0].tokenizer.decode(prompts[0].tolist()),
        prompts=len(prompts),
        text_tokens=n["text_tokens"],
        temperature=TEMPERATURE,
        drafts=tuple(draft(ctx, label, trained[label], openings) for label in HEADS if label != "N = 1"),
        head_source=inspect.getsource(GPT.future_logits),
        objective_source=inspect.getsource(multi_token),
    )


def openings_of(ctx: Context) -> Tensor:
    """What drafts go on from: the first quarters of windows, (N, T / 4)."""
    context = ctx.model(STUDY_ROPE).model.config.context
    return ctx.tokens(STUDY_ROPE).unfold(0, context // 4, context)[: ctx.numbers["prompts"]]


def score(model: GPT, tokens: Tensor) -> Scores:
    """All heads of a model."""
    found = score_heads(model, tokens)
    return Scores(found.losses, found.accuracies)


def weights_after(model: GPT, tokens: Tensor, steps: int, objective: str, heads: int = 1) -> list[Tensor]:
    """Train the architecture of ``model`` from scratch for a few steps; the trunk's weights."""
    config = replace(model.config, n_future=heads)
    tc = TrainConfig(steps=steps, batch_size=4, objective=objective, eval_every=steps)
    trained = train(config, tc, tokens, tokens[:200], seed=0).model
    return [weight for name, weight in trained.named_parameters() if not name.startswith("future")]


def gradients(model: GPT, batch: Tensor, reduction: str) -> Tensor:
    """The gradient of the multi-token loss, all parameters in one vector."""
    loss = OBJECTIVES["multi_token"](model, batch, args={"reduction": reduction})
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def gradient_difference(model: GPT, tokens: Tensor) -> float:
    """Of the sum of four losses and four times their mean, relative."""
    batch = tokens.unfold(0, model.config.context + 1, model.config.context)[:4]
    summed, mean = gradients(model, batch, "sum"), gradients(model, batch, "mean")
    return float((summed - 4 * mean).norm() / summed.norm())


def first_head_texts(ctx: Context, models: Sequence[TrainedModel], prompts: Tensor) -> list[list[str]]:
    """Texts of each seed's model from the same prompts, with the same random numbers, by its first head."""
    texts = []
    for trained in models:
        tokens = generate(
            trained.model,
            prompts,
            ctx.numbers["text_tokens"],
            sampling=Sampling(TEMPERATURE),
            generator=ctx.generator("text"),
        )[:, prompts.shape[1] :]
        texts.append([trained.tokenizer.decode(line) for line in tokens.tolist()])
    return texts


def draft(ctx: Context, label: str, models: Sequence[TrainedModel], prompts: Tensor) -> Drafting:
    """Self-speculation from each prompt by each seed's model, greedy and sampled; ``timed`` adds the times.

    Greedy in double precision: passes of other lengths sum in another order, which must not decide between two tokens.
    """
    model = models[0].model
    n_new, generator = model.config.context - prompts.shape[1], ctx.generator(f"draft {label}")
    greedy, sampled, wrong = [], [], 0
    for trained in models:
        exact = copy.deepcopy(trained.model).double()
        found = [self_speculate(exact, prompt[None], n_new, sampling=GREEDY) for prompt in prompts]
        drawn = [self_speculate(trained.model, prompt[None], n_new, generator=generator) for prompt in prompts]
        plain = generate(exact, prompts, n_new, sampling=GREEDY)
        wrong += sum(bool((run.tokens != text).any()) for run, text in zip(found, plain, strict=True))
        greedy.append(tuple(map(counts, found)))
        sampled.append(tuple(map(counts, drawn)))
    return Drafting(label, tuple(greedy), tuple(sampled), wrong, UNTIMED, UNTIMED)


def timed(ctx: Context, drafting: Drafting) -> Drafting:
    """With the time of one text of the first seed's model, plain and drafted."""
    model, prompts = ctx.model(HEADS[drafting.label]).model, openings_of(ctx)
    n_new = model.config.context - prompts.shape[1]
    timings = timing.measure(
        {
            "plain": lambda: generate(model, prompts[:1], n_new, sampling=GREEDY),
            "drafted": lambda: self_speculate(model, prompts[:1], n_new, sampling=GREEDY),
        },
        repeats=ctx.numbers["repeats"],
        device=ctx.device,
    )
    return replace(drafting, plain=timings["plain"], drafted=timings["drafted"])


def counts(run: SelfSpeculation) -> Run:
    """What a text took, without its tokens."""
    return Run(run.passes, run.emitted, tuple((tested, accepted) for tested, accepted in run.by_head))


EXERCISE = Exercise(
    measure=measure,
    recipes=tuple(TRAINED.values()),
    numbers={
        "smoke": {"check_steps": 3, "texts": 2, "text_tokens": 40, "prompts": 3, "repeats": 2},
        "laptop": {"check_steps": 5, "texts": 24, "text_tokens": 100, "prompts": 16, "repeats": 15},
        "gpu": {"check_steps": 5, "texts": 24, "text_tokens": 100, "prompts": 40, "repeats": 15},
    },
    timed=True,
    ahead=ahead,
    seconds={"smoke": 1, "laptop": 5, "gpu": 8},
    seconds_ahead={"smoke": 2, "laptop": 25, "gpu": 32},
)
