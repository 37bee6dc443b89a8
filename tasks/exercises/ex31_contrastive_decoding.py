"""Exercise 21.31: contrastive decoding by the book's formula and by the paper's, against sampling of equal entropy."""

import inspect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import brentq
from torch import Tensor

from minigpt.cost.counting import count_parameters
from minigpt.decoding import contrastive
from minigpt.decoding.contrastive import Contrastive, contrast, plausible
from minigpt.decoding.sampling import Sampling, generate
from minigpt.evaluation.diversity import distinct, repetition
from minigpt.evaluation.entropy import entropy
from minigpt.evaluation.evaluate import evaluating
from minigpt.evaluation.quality import continuation_nll
from minigpt.evaluation.statistics import compare, format_mean_std, mean_std
from minigpt.evaluation.words import share_of_real_words, words
from minigpt.model import GPT
from reports.types import Answer, Block, Check, Code, Figure, Part, Prose, Sample, Series, Table
from tasks.exercise import Context, Exercise
from tasks.recipes.catalogue import MEDIUM_LONG, STUDENT, TEACHER

BOOK, PAPER = "book", "paper"
PLAUSIBILITY = 0.1  # Li et al. (2022), section 3.3
PROMPT = 16  # characters


@dataclass(frozen=True)
class Setting:
    """One way to decode."""

    formula: str  # BOOK, PAPER or ""
    alpha: float
    temperature: float = 1.0

    @property
    def plausibility(self) -> float:
        """Threshold of V_head, 0 without one."""
        return PLAUSIBILITY if self.formula == PAPER else 0.0

    @property
    def label(self) -> str:
        """As readers see it."""
        greedy = ", greedy" if self.temperature == 0 else ""
        if self.formula:
            return f"{self.formula}, α = {self.alpha:g}{greedy}"
        return "expert alone, greedy" if greedy else f"expert alone, τ = {self.temperature:.2f}"

    @property
    def key(self) -> str:
        """In names of metrics."""
        return f"{self.formula}_alpha_{self.alpha:g}" + ("_greedy" if self.temperature == 0 else "")


@dataclass(frozen=True)
class Quality:
    """What a setting wrote, and how good it is."""

    setting: Setting
    entropy: float  # of the sampling distribution on held-out contexts, nats per token; 0 when greedy
    prompt: str  # of the first text
    texts: tuple[str, ...]
    nll: tuple[float, ...]  # under the scorer, nats per character, one per text of every seed
    by_seed: tuple[float, ...]  # means of these, one per seed of the amateur; without one, per seed of the sampling
    known: float  # share of the words that occur in the training text
    distinct: float  # distinct words over words, all texts together
    repeated: float  # repeated 8-grams of characters within a text, mean


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
    windows = tokens[: ctx.numbers["heldout"] // context * context].view(-1, context)

    def logits(model: GPT) -> Tensor:
        with torch.inference_mode(), evaluating(model):
            found: Tensor = model(windows)
        return found.flatten(0, 1).float()

    count = ctx.numbers["texts"]
    starts = torch.arange(count, device=tokens.device) * ((len(tokens) - PROMPT) // count)
    return Lab(
        expert=expert,
        amateurs=amateurs,
        scorer=ctx.model(MEDIUM_LONG).model,
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
        texts=texts,
        nll=tuple(itertools.chain.from_iterable(scores)),
        by_seed=tuple(mean_std(own)[0] for own in scores),
        known=share_of_real_words(texts, lab.words, cut_start=True),
        distinct=distinct([words(text)[1:-1] for text in texts], 1),
        repeated=sum(repetition(text, 8) for text in texts) / len(texts),
    )


@dataclass(frozen=True)
class Findings:
    """All that was measured: each contrastive setting with plain sampling of the same entropy."""

    lab: Lab
    pairs: tuple[tuple[Quality, Quality], ...]  # contrastive, expert alone
    greedy: tuple[Quality, Quality]  # expert alone, paper
    checks: tuple[Check, ...]


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    lab = prepare(ctx)
    checks = exact_checks(ctx, lab)
    settings = [Setting(BOOK, alpha) for alpha in ctx.numbers["book_alphas"]]
    settings += [Setting(PAPER, alpha) for alpha in ctx.numbers["paper_alphas"]]
    pairs = []
    for index, setting in enumerate(settings):
        pairs.append((judge(ctx, lab, setting), judge(ctx, lab, matched(lab, setting))))
        ctx.progress((index + 1) / (len(settings) + 1), setting.label)
    worst = max(abs(own.entropy - plain.entropy) for own, plain in pairs)
    match = Check.at_most("entropy of each setting and of its plain counterpart, max difference (nats)", worst, 1e-3)
    greedy = (judge(ctx, lab, Setting("", 0.0, 0.0)), judge(ctx, lab, Setting(PAPER, 1.0, 0.0)))
    return Findings(lab, tuple(pairs), greedy, (*checks, match))


@torch.inference_mode()
def exact_checks(ctx: Context, lab: Lab) -> tuple[Check, ...]:
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
    return (
        Check.equal("α = 0 gives the tokens of plain sampling, same generator", same, True),
        Check.at_most("the book's formula against p/q^α in probabilities, max difference", formula, 1e-9),
        Check.equal("V_head against its definition in probabilities", head, True),
        Check.at_most("an amateur equal to the expert: temperature 1/(1 - α), max difference", agree, 1e-6),
        Check.at_most("the amateur's cache against reading the text anew (logits)", worst, 1e-3),
    )


# --- The parts --------------------------------------------------------------------------------------------------


def part_a(ctx: Context) -> tuple[Part, Check, dict[str, float]]:
    """The models, and whether the expert is one."""
    roles = {
        "expert": [ctx.model(TEACHER)],
        "amateur": [ctx.model(STUDENT, seed) for seed in ctx.seeds(STUDENT)],
        "scorer, takes no part in decoding": [ctx.model(MEDIUM_LONG)],
    }
    losses = {role: [found.evaluations["validation_loss"][-1] for found in models] for role, models in roles.items()}
    rows = tuple(
        (
            role,
            len(models),
            models[0].model.config.n_layer,
            models[0].model.config.d_model,
            count_parameters(models[0].model),
            models[0].recipe.train.steps,
            mean_std(losses[role])[0],
            mean_std(losses[role])[1] if len(models) > 1 else None,
        )
        for role, models in roles.items()
    )
    columns = ("role", "seeds", "layers", "width", "parameters", "steps", "validation loss (nats/character)", "± std")
    table = Table(columns, rows, "Trained on the same text.", "models")
    expert, amateur = (mean_std(losses[role])[0] for role in ("expert", "amateur"))
    ahead = amateur - expert
    premise = (
        f"The expert predicts held-out text better than the amateur by {ahead:.3f} nats per character "
        f"({expert:.3f} against {format_mean_std(losses['amateur'])}): the difference that the method lives on."
        if ahead > 0
        else f"The expert is no better than the amateur on held-out text ({expert:.3f} nats against "
        f"{format_mean_std(losses['amateur'])}), against what the method presupposes."
    )
    check = Check.at_least("the expert is ahead of the amateur (nats per character)", ahead, 0.0, "empirical")
    metrics = {"validation_loss_nats_expert": expert, "validation_loss_nats_amateur": amateur}
    return Part("a", (table, Prose(premise)), "A large and a small model"), check, metrics


def part_b(ctx: Context, lab: Lab) -> Part:
    """The formulas, and one step of them."""
    tokenizer = ctx.model(TEACHER).tokenizer
    expert, (amateur, *_) = lab.heldout
    gap = (expert.softmax(-1) - amateur.softmax(-1)).abs().sum(-1)
    place = int(gap.argmax())  # where the two disagree most
    e, a = expert[place], amateur[place]
    columns = {
        "expert": e.softmax(-1),
        "amateur": a.softmax(-1),
        "book, α = 0.5": contrast(e, a, 0.5).softmax(-1),
        "book, α = 1": contrast(e, a, 1.0).softmax(-1),
        "paper, α = 1": contrast(e, a, 1.0, PLAUSIBILITY).softmax(-1),
    }
    shown = sorted({int(i) for p in columns.values() for i in p.topk(3).indices})
    rows = tuple((repr(tokenizer.decode([i])), *(p[i].item() for p in columns.values())) for i in shown)
    start = max(0, place - 40)
    before = tokenizer.decode(ctx.tokens(TEACHER)[start : place + 1].tolist())
    caption = f"Probabilities of the next character after “…{before}”, where the two models disagree most."
    text = (
        "The book: $\\text{logits} = \\text{logits}_\\text{large} - \\alpha\\, \\text{logits}_\\text{small}$, that is "
        "$p / q^\\alpha$, renormalised. The coefficients sum to $1 - \\alpha$: where the two models agree, the result "
        "is the expert at temperature $1/(1-\\alpha)$, and at $\\alpha = 1$ the uniform distribution over all "
        "characters, absurd ones included. The paper (Li et al., 2022, sections 3.3 and 3.4) contrasts only inside "
        "$\\mathcal V_\\text{head} = \\{x : p(x) \\ge "
        f"{PLAUSIBILITY:g}"
        "\\, \\max_w p(w)\\}$, with α = 1."
    )
    blocks = (
        Prose(text),
        Table(("next character", *columns), rows, caption, "one_step"),
        Code(inspect.getsource(contrastive.contrast), "minigpt/decoding/contrastive.py"),
    )
    return Part("b", blocks, "The formula")


def quality_table(f: Findings) -> Table:
    """Every setting beside its counterpart."""
    columns = (
        *("decoding", "entropy (nats)", "NLL under the scorer", "± std over texts", "± std over seeds"),
        *("known words", "distinct words", "repeated 8-grams", "verdict on NLL"),
    )
    rows = []
    for own, plain in f.pairs:
        verdict = compare(plain.nll, own.nll).verdict
        for quality, said in ((own, verdict), (plain, "↑ its counterpart")):
            rows.append((quality.setting.label, quality.entropy, *nll_cells(quality), *shares(quality), said))
    for quality in f.greedy:
        rows.append((quality.setting.label, 0.0, *nll_cells(quality), *shares(quality), ""))
    seeds = len(f.lab.amateurs)
    caption = (
        f"{len(f.lab.prompts)} texts of {f.lab.n_new} characters per row and seed of the amateur ({seeds}), from the "
        "same prompts. Below each contrastive setting stands plain sampling from the expert at the temperature of "
        f"equal entropy (mean over {len(f.lab.heldout[0]):,} held-out contexts), with as many texts. Verdict: Welch's "
        "95 % interval over texts. Seeds are those of the amateur's training and of the sampling, or of the sampling "
        "alone where there is no amateur. NLL in nats per character; known words occur in the training text."
    )
    return Table(columns, tuple(rows), caption, "quality")


def nll_cells(quality: Quality) -> tuple[float | None, ...]:
    """Mean NLL, its deviation over texts, and over seeds where there are several."""
    return (*mean_std(quality.nll), mean_std(quality.by_seed)[1] if len(quality.by_seed) > 1 else None)


def shares(quality: Quality) -> tuple[float, float, float]:
    """The three shares of a row."""
    return quality.known, quality.distinct, quality.repeated


def verdicts(f: Findings, formula: str) -> str:
    """What contrast does beyond its change of entropy, per α."""
    said: dict[str, list[str]] = {"lower": [], "higher": [], "noise": []}
    for own, plain in f.pairs:
        if own.setting.formula == formula and own.setting.alpha > 0:
            said[compare(plain.nll, own.nll).verdict].append(f"{own.setting.alpha:g}")
    names = {
        "lower": "likelier text at α = {}",
        "higher": "less likely text at α = {}",
        "noise": "text as likely, up to noise, at α = {}",
    }
    return " and ".join(names[verdict].format(", ".join(alphas)) for verdict, alphas in said.items() if alphas)


def against_plain(f: Findings) -> str:
    """The finding in a sentence."""
    return (
        f"Beside plain sampling of equal entropy, the book's formula writes {verdicts(f, BOOK)}; the paper's "
        f"{verdicts(f, PAPER)}."
    )


def part_c(f: Findings) -> tuple[Part, list[Check]]:
    """Against standard sampling."""
    plain = next(own for own, _ in f.pairs if own.setting == Setting(BOOK, 0.0))
    best = min((own for own, _ in f.pairs if own.setting.alpha > 0), key=lambda own: mean_std(own.nll)[0])
    greedy, contrasted = f.greedy
    change = compare(greedy.nll, contrasted.nll)
    repeats = (
        f"repeats fewer 8-grams ({contrasted.repeated:.0%} against {greedy.repeated:.0%})"
        if contrasted.repeated < greedy.repeated
        else f"does not repeat fewer 8-grams ({contrasted.repeated:.0%} against {greedy.repeated:.0%})"
    )
    likely = {"lower": "and is the more likely text", "higher": "and is the less likely text"}.get(
        change.verdict, "and is as likely, up to noise,"
    )
    text = (
        f"Standard sampling from the expert has an NLL of {mean_std(plain.nll)[0]:.3f} under the scorer and "
        f"{plain.known:.0%} known words; the best contrastive setting, {best.setting.label}, "
        f"{mean_std(best.nll)[0]:.3f} and {best.known:.0%}. That alone proves little: a distribution of lower entropy "
        f"writes likelier text, and {best.setting.label} has {best.entropy:.2f} nats against {plain.entropy:.2f}. "
        f"{against_plain(f)} Chosen greedily, the paper's text {repeats} {likely} under the scorer."
    )
    checks = [
        Check.at_most(
            "greedy contrastive decoding repeats less than greedy decoding (difference of repeated 8-grams)",
            contrasted.repeated - greedy.repeated,
            0.0,
            "empirical",
        ),
        Check.at_most(
            "the paper's α = 1 is likelier than plain sampling of equal entropy (nats per character)",
            next(
                mean_std(own.nll)[0] - mean_std(other.nll)[0]
                for own, other in f.pairs
                if own.setting == Setting(PAPER, 1.0)
            ),
            0.0,
            "empirical",
        ),
    ]
    samples = tuple(
        Sample(q.setting.label, q.prompt, q.texts[0], f"entropy {q.entropy:.2f} nats, NLL {q.nll[0]:.2f}")
        for q in (plain, best, next(other for own, other in f.pairs if own is best), *f.greedy)
    )
    return Part("c", (Prose(text), quality_table(f), *samples), "Against standard sampling"), checks


def part_d(f: Findings) -> tuple[Part, list[Check]]:
    """Over α."""
    groups: Mapping[str, Sequence[tuple[Quality, Quality]]] = {
        formula: [pair for pair in f.pairs if pair[0].setting.formula == formula] for formula in (BOOK, PAPER)
    }
    series = []
    for formula, pairs in groups.items():
        alphas = tuple(own.setting.alpha for own, _ in pairs)
        for name, which in ((f"{formula}'s formula", 0), (f"plain sampling, entropy of the {formula}'s", 1)):
            means = [mean_std(pair[which].nll) for pair in pairs]
            error = tuple(spread / len(pair[which].nll) ** 0.5 for pair, (_, spread) in zip(pairs, means, strict=True))
            series.append(Series(name, alphas, tuple(mean for mean, _ in means), error))
    entropies = tuple(
        Series(f"{formula}'s formula", tuple(p[0].setting.alpha for p in pairs), tuple(p[0].entropy for p in pairs))
        for formula, pairs in groups.items()
    )
    book = [own.entropy for own, _ in groups[BOOK]]
    rise = min((after - before for before, after in itertools.pairwise(book)), default=0.0)
    last, head, strongest = groups[BOOK][-1][0], groups[PAPER][0][0], groups[PAPER][-1][0]
    text = (
        f"The book's formula {'flattens the distribution steadily' if rise > 0 else 'changes the entropy unevenly'}: "
        f"from {book[0]:.2f} nats at α = 0 to {book[-1]:.2f} at α = {last.setting.alpha:g} (uniform: "
        f"{math.log(f.lab.expert.config.vocab_size):.2f}), where {last.known:.0%} of the words are known. The paper's "
        f"keeps to the plausible characters: α = 0, the truncation alone (known as min-p), has {head.entropy:.2f} nats "
        f"and an NLL of {mean_std(head.nll)[0]:.3f}; α = {strongest.setting.alpha:g} has {strongest.entropy:.2f} nats "
        f"and {mean_std(strongest.nll)[0]:.3f}. {head_sentence(head, strongest)}"
    )
    caption = "NLL under the scorer, mean ± standard error over texts, beside plain sampling of equal entropy."
    blocks: tuple[Block, ...] = (
        Figure("line", tuple(series), "α", "NLL (nats/character)", caption),
        Figure("line", entropies, "α", "entropy (nats)", "Mean entropy on held-out contexts."),
        Prose(text),
    )
    claim = "the book's formula raises the entropy with every step of α (least rise)"
    check = Check.at_least(claim, rise, 0.0, "empirical")
    return Part("d", blocks, "Different values of α"), [check]


def head_sentence(head: Quality, strongest: Quality) -> str:
    """Whether the contrast adds anything to the truncation."""
    verdict = compare(head.nll, strongest.nll).verdict
    return {
        "lower": "The contrast makes the text likelier than the truncation alone does.",
        "higher": "The contrast makes the text less likely than the truncation alone does.",
    }.get(verdict, "Beside the truncation alone, the contrast makes no difference beyond noise.")


def answer(ctx: Context) -> Answer:
    """Contrastive decoding, part by part."""
    models, premise, losses = part_a(ctx)
    f = measure(ctx)
    compared, checks = part_c(f)
    explored, more = part_d(f)
    metrics: dict[str, float | int] = {**losses}
    for own, plain in f.pairs:
        for quality, suffix in ((own, ""), (plain, "_matched")):
            name = own.setting.key + suffix
            metrics[f"nll_nats_{name}"], metrics[f"nll_nats_{name}_std"] = mean_std(quality.nll)
            if len(quality.by_seed) > 1:
                metrics[f"nll_nats_{name}_std_over_seeds"] = mean_std(quality.by_seed)[1]
            metrics[f"entropy_nats_{name}"] = quality.entropy
            metrics[f"known_words_{name}"] = quality.known
            metrics[f"distinct_words_{name}"] = quality.distinct
        metrics[f"temperature_{own.setting.key}_matched"] = plain.setting.temperature
    for name, quality in zip(("expert", "paper"), f.greedy, strict=True):
        metrics[f"repeated_8grams_greedy_{name}"] = quality.repeated
        metrics[f"nll_nats_greedy_{name}"] = mean_std(quality.nll)[0]
    return Answer(
        summary=against_plain(f),
        parts=(models, part_b(ctx, f.lab), compared, explored),
        checks=(*f.checks, premise, *checks, *more),
        metrics=metrics,
    )


EXERCISE = Exercise(
    id="21.31",
    title="Contrastive Decoding",
    recipes=(TEACHER, STUDENT, MEDIUM_LONG),
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
    answer=answer,
)
