"""Measures 21.31: texts of both formulas and of plain sampling of equal entropy, and how good they are."""

import inspect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.cost.counting import count_parameters
from minigpt.decoding import contrastive
from minigpt.decoding.contrastive import Contrastive, contrast, plausible
from minigpt.decoding.sampling import Sampling, generate
from minigpt.evaluation.diversity import distinct, repetition
from minigpt.evaluation.entropy import entropy
from minigpt.evaluation.evaluate import evaluating
from minigpt.evaluation.excerpts import leading
from minigpt.evaluation.quality import continuation_nll
from minigpt.evaluation.statistics import mean_std
from minigpt.evaluation.words import share_of_real_words, words
from minigpt.model import GPT
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.exercises.ex31_contrastive_decoding.findings import (
    BOOK,
    PAPER,
    PLAUSIBILITY,
    Exactness,
    Findings,
    Greedy,
    Model,
    OneStep,
    Pair,
    Quality,
    Setting,
)
from tasks.recipes.catalogue import SMALL_LONG, STUDENT, STUDENT_LONG, TEACHER

PROMPT = 16  # characters


@dataclass(frozen=True)
class Lab:
    """The models and the data, together."""

    expert: GPT
    amateurs: tuple[GPT, ...]  # one per seed
    scorer: GPT
    heldout: tuple[Tensor, tuple[Tensor, ...]]  # logits of expert and amateurs on held-out contexts, (N, V) each
    prompts: Tensor  # (B, PROMPT)
    words: frozenset[str]  # of the training text
    n_new: int


def prepare(ctx: Context) -> Lab:
    """Models, held-out logits and prompts."""
    expert, amateurs = ctx.model(TEACHER).model, tuple(ctx.model(STUDENT, s).model for s in ctx.seeds(STUDENT))
    context = min(expert.config.context, amateurs[0].config.context)
    tokens = ctx.tokens(TEACHER)
    windows = leading(tokens, max(1, ctx.numbers["heldout"] // context), context)

    def logits(model: GPT) -> Tensor:
        with torch.inference_mode(), evaluating(model):
            found: Tensor = model(windows)
        return found.flatten(0, 1).float()

    count = ctx.numbers["texts"]
    starts = torch.arange(count, device=tokens.device) * ((len(tokens) - PROMPT) // count)
    return Lab(
        expert=expert,
        amateurs=amateurs,
        scorer=ctx.model(SMALL_LONG).model,
        heldout=(logits(expert), tuple(map(logits, amateurs))),
        prompts=tokens[starts[:, None] + torch.arange(PROMPT, device=tokens.device)],
        words=frozenset(words(ctx.text("train"))),
        n_new=context - PROMPT,
    )


# --- Entropy ----------------------------------------------------------------------------------------------------


def heldout_entropy(lab: Lab, setting: Setting) -> float:
    """Mean entropy of a setting's distribution on the held-out contexts, over the amateurs, in nats."""
    if setting.temperature == 0:
        return 0.0
    expert, amateurs = lab.heldout
    found = []
    for amateur in amateurs if setting.formula else amateurs[:1]:
        logits = contrast(expert, amateur, setting.alpha, setting.plausibility) / setting.temperature
        found.append(entropy(logits.softmax(dim=-1)).mean().item())
    return sum(found) / len(found)


def matched(lab: Lab, setting: Setting) -> Setting:
    """Plain sampling from the expert at the temperature that has the same mean entropy."""
    from scipy.optimize import brentq

    wanted = heldout_entropy(lab, setting)

    def excess(temperature: float) -> float:
        return heldout_entropy(lab, Setting("", 0.0, temperature)) - wanted

    return Setting("", 0.0, float(brentq(excess, 0.02, 50.0, xtol=1e-6)))


# --- Writing and judging ----------------------------------------------------------------------------------------


def judge(ctx: Context, lab: Lab, setting: Setting) -> Quality:
    """Write with one setting, once with the amateur of each seed, and measure the texts."""
    written = []
    certain = not setting.formula and setting.temperature == 0  # no amateur and no chance: once is enough
    for seed, amateur in enumerate(lab.amateurs[:1] if certain else lab.amateurs):
        processors = (Contrastive(amateur, setting.alpha, setting.plausibility),) if setting.formula else ()
        written.append(
            generate(
                lab.expert,
                lab.prompts,
                lab.n_new,
                sampling=Sampling(setting.temperature),
                generator=ctx.generator(f"{setting.label}, amateur {seed}"),
                processors=processors,
            )
        )
    tokenizer = ctx.model(TEACHER).tokenizer
    texts = tuple(tokenizer.decode(row) for row in torch.cat(written)[:, PROMPT:].tolist())
    scores = [continuation_nll(lab.scorer, tokens, PROMPT).tolist() for tokens in written]
    return Quality(
        setting=setting,
        entropy=heldout_entropy(lab, setting),
        prompt=tokenizer.decode(lab.prompts[0].tolist()),
        text=texts[0],
        nll=tuple(itertools.chain.from_iterable(scores)),
        by_seed=tuple(mean_std(own)[0] for own in scores),
        known=share_of_real_words(texts, lab.words, cut_start=True),
        distinct=distinct([words(text)[1:-1] for text in texts], 1),
        repeats=tuple(repetition(text, 8) for text in texts),
    )


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    lab = prepare(ctx)
    exact = exactness(ctx, lab)
    settings = [Setting(BOOK, alpha) for alpha in ctx.numbers["book_alphas"]]
    settings += [Setting(PAPER, alpha) for alpha in ctx.numbers["paper_alphas"]]
    pairs = []
    for index, setting in enumerate(settings):
        pairs.append(Pair(judge(ctx, lab, setting), judge(ctx, lab, matched(lab, setting))))
        ctx.progress((index + 1) / (len(settings) + 1), setting.label)
    return Findings(
        expert=described([ctx.model(TEACHER)]),
        amateur=described([ctx.model(STUDENT, seed) for seed in ctx.seeds(STUDENT)]),
        longer=described([ctx.model(STUDENT_LONG, seed) for seed in ctx.seeds(STUDENT_LONG)]),
        scorer=described([ctx.model(SMALL_LONG)]),
        baselines=ctx.model(TEACHER).baselines,
        step=one_step(ctx, lab),
        source=inspect.getsource(contrastive.contrast),
        pairs=tuple(pairs),
        greedy=Greedy(judge(ctx, lab, Setting("", 0.0, 0.0)), judge(ctx, lab, Setting(PAPER, 1.0, 0.0))),
        exact=exact,
        texts=len(lab.prompts),
        n_new=lab.n_new,
        contexts=len(lab.heldout[0]),
        vocab_size=lab.expert.config.vocab_size,
    )


def described(found: Sequence[TrainedModel]) -> Model:
    """A recipe with all its seeds."""
    first = found[0]
    return Model(
        layers=first.model.config.n_layer,
        width=first.model.config.d_model,
        parameters=count_parameters(first.model),
        steps=first.recipe.train.steps,
        losses=tuple(one.evaluations["validation_loss"][-1] for one in found),
    )


def one_step(ctx: Context, lab: Lab) -> OneStep:
    """Both formulas at the place where the two models disagree most; every character in some distribution's top 3."""
    tokenizer = ctx.model(TEACHER).tokenizer
    expert, (amateur, *_) = lab.heldout
    gap = (expert.softmax(-1) - amateur.softmax(-1)).abs().sum(-1)
    place = int(gap.argmax())
    e, a = expert[place], amateur[place]
    columns = {
        "expert": e.softmax(-1),
        "amateur": a.softmax(-1),
        "book, α = 0.5": contrast(e, a, 0.5).softmax(-1),
        "book, α = 1": contrast(e, a, 1.0).softmax(-1),
        "paper, α = 1": contrast(e, a, 1.0, PLAUSIBILITY).softmax(-1),
    }
    shown = sorted({int(i) for p in columns.values() for i in p.topk(3).indices})
    start = max(0, place - 40)
    return OneStep(
        before=tokenizer.decode(ctx.tokens(TEACHER)[start : place + 1].tolist()),
        characters=tuple(repr(tokenizer.decode([i])) for i in shown),
        probabilities={name: tuple(p[i].item() for i in shown) for name, p in columns.items()},
    )


@torch.inference_mode()
def exactness(ctx: Context, lab: Lab) -> Exactness:
    """The formulas against their definitions."""

    def write(*processors: Contrastive) -> Tensor:
        return generate(lab.expert, lab.prompts, 32, generator=ctx.generator("α = 0"), processors=processors)

    same = torch.equal(write(), write(Contrastive(lab.amateurs[0], 0.0)))
    expert, (amateur, *_) = lab.heldout
    p, q = expert.double().softmax(dim=-1), amateur.double().softmax(dim=-1)
    by_hand = p / q**0.5  # p^1 q^-α in probabilities
    by_hand = by_hand / by_hand.sum(dim=-1, keepdim=True)
    formula = (contrast(expert.double(), amateur.double(), 0.5).softmax(dim=-1) - by_hand).abs().max().item()
    head = bool((plausible(expert.double(), PLAUSIBILITY) == (p >= PLAUSIBILITY * p.amax(-1, keepdim=True))).all())
    agree = (contrast(expert, expert, 0.5).softmax(-1) - (expert / 2).softmax(-1)).abs().max().item()
    process, worst = Contrastive(lab.amateurs[0], 0.5), 0.0
    text = ctx.tokens(TEACHER)[None, : PROMPT + 16]
    for end in range(PROMPT, text.shape[1]):
        own = lab.expert(text[:, :end])[:, -1]
        fresh = contrast(own, lab.amateurs[0](text[:, :end])[:, -1], 0.5)
        worst = max(worst, (process(text[:, :end], own) - fresh).abs().max().item())
    return Exactness(same_tokens=same, formula=formula, head=head, temperature=agree, cache=worst)


EXERCISE = Exercise(
    measure=measure,
    recipes=(TEACHER, STUDENT, STUDENT_LONG, SMALL_LONG),
    numbers={
        "smoke": {"texts": 4, "heldout": 512, "book_alphas": (0.0, 0.5), "paper_alphas": (0.0, 1.0)},
        "laptop": {
            "texts": 32,
            "heldout": 2_048,
            "book_alphas": (0.0, 0.25, 0.5, 0.75, 1.0),
            "paper_alphas": (0.0, 0.5, 1.0),
        },
        "gpu": {
            "texts": 256,
            "heldout": 32_768,
            "book_alphas": (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5),
            "paper_alphas": (0.0, 0.25, 0.5, 1.0, 2.0),
        },
    },
    seconds={"smoke": 4, "laptop": 22, "gpu": 60},
)
