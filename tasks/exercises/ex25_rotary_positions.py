"""Exercise 21.25: rotary position embeddings, against learned ones, and beyond the length they were trained on."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.cache import KVCache
from minigpt.config import GPTConfig
from minigpt.decoding.sampling import generate
from minigpt.evaluation.extrapolation import losses_by_bucket, readings
from minigpt.evaluation.statistics import compare, describe, format_mean_std, mean_std
from minigpt.model import GPT, CausalSelfAttention
from minigpt.positions import rope_tables, rotate, sinusoidal
from minigpt.pretrained.parity import with_our_attention
from reports.types import Answer, Block, Cell, Check, Code, Figure, Heatmap, Part, Prose, Sample, Series, Table
from tasks.exercise import Context, Exercise
from tasks.recipes.catalogue import STUDY, STUDY_NO_POSITION, STUDY_ROPE, STUDY_SINUSOIDAL
from tasks.study_legacy import Variant, curves, metrics, sentences, table, variants

TRAINED = {
    "learned positions": STUDY,
    "RoPE": STUDY_ROPE,
    "sinusoidal": STUDY_SINUSOIDAL,
    "no positions": STUDY_NO_POSITION,
}
D = 16  # head width of the demonstrations, that of the trained models at their full width
TOLERATED = 0.1  # nats


# --- (a) The rotation -------------------------------------------------------------------------------------------


def rotation_matrix(position: float, base: float = 10_000.0) -> Tensor:
    """R_m of Su et al. (2021), equation 15, written out: one 2 × 2 rotation per pair of dimensions, (D, D) float64.

    Pairs are (i, i + D/2). Nobody multiplies by it, as all but 2 numbers in each row are 0.
    """
    matrix = torch.zeros(D, D, dtype=torch.float64)
    for i in range(D // 2):
        angle = torch.tensor(position * base ** (-2 * i / D), dtype=torch.float64)
        matrix[i, i] = matrix[i + D // 2, i + D // 2] = angle.cos()
        matrix[i, i + D // 2], matrix[i + D // 2, i] = -angle.sin(), angle.sin()
    return matrix


def difference_from_matrix(length: int, generator: torch.Generator) -> float:
    """Largest difference between ``rotate`` and the product with the matrix."""
    x = torch.randn(1, 1, length, D, generator=generator)
    turned = rotate(x, *rope_tables(torch.arange(length), D))[0, 0]
    expected = torch.stack([rotation_matrix(m) @ x[0, 0, m].double() for m in range(length)])
    return float((turned - expected).abs().max())


def difference_from_llama(length: int, generator: torch.Generator) -> float:
    """Largest difference between our rotated queries and those of Transformers' Llama."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    q = torch.randn(2, 4, length, D, generator=generator)
    embedding = LlamaRotaryEmbedding(LlamaConfig(hidden_size=4 * D, num_attention_heads=4))
    expected, _ = apply_rotary_pos_emb(q, q, *embedding(q, torch.arange(length)[None]))
    return float((rotate(q, *rope_tables(torch.arange(length), D)) - expected).abs().max())


def frequencies(context: int) -> Table:
    """The pairs of dimensions, how fast each turns and how far it gets."""
    rates = [10_000.0 ** (-2 * i / D) for i in range(D // 2)]
    rows = tuple((i, rate, 2 * torch.pi / rate, context * rate / (2 * torch.pi)) for i, rate in enumerate(rates))
    columns = ("pair i", "θ_i (radians per position)", "wavelength (positions)", f"turns in {context} positions")
    caption = (
        "Fast pairs tell neighbours apart; the slow ones do not complete a turn in training, so that longer texts "
        "show them angles they have never met."
    )
    return Table(columns, rows, caption, "frequencies")


def turning(positions: int = 12) -> Figure:
    """One vector of ones, pair by pair, at successive positions."""
    x = torch.ones(1, 1, positions, D)
    turned = rotate(x, *rope_tables(torch.arange(positions), D))[0, 0]
    series = tuple(
        Series(f"pair {i}", tuple(turned[:, i].tolist()), tuple(turned[:, i + D // 2].tolist())) for i in (0, 1, 2, 4)
    )
    caption = f"The same vector at positions 0 … {positions - 1}: each pair moves on its circle at its own speed."
    return Figure("scatter", series, "first number of the pair", "second number", caption)


def part_a(ctx: Context, context: int) -> tuple[tuple[Block, ...], list[Check]]:
    """The rotation, drawn and compared."""
    length = ctx.numbers["positions"]
    cos, _ = rope_tables(torch.arange(context), D)
    checks = [
        Check.at_most(
            f"rotate = multiplication by the rotation matrix, at {length} positions (max difference)",
            difference_from_matrix(length, ctx.generator("matrix")),
            1e-4,
        ),
        Check.at_most(
            f"rotate = Transformers' Llama rotation, at {length} positions (max difference)",
            difference_from_llama(length, ctx.generator("llama")),
            1e-4,
        ),
        Check.at_most(
            "rotation matrices are orthogonal: |R Rᵀ − 1| (max)",
            max((rotation_matrix(m) @ rotation_matrix(m).T - torch.eye(D)).abs().max().item() for m in range(length)),
            1e-12,
        ),
    ]
    blocks = (
        Prose(
            "Position $m$ turns each pair of dimensions by $m\\theta_i$ with $\\theta_i = b^{-2i/d}$, "
            "$b = 10\\,000$ (Su et al., 2021, equation 15):\n\n"
            "$$\\begin{pmatrix} x_i' \\\\ x_{i+d/2}' \\end{pmatrix} = "
            "\\begin{pmatrix} \\cos m\\theta_i & -\\sin m\\theta_i \\\\ \\sin m\\theta_i & \\cos m\\theta_i "
            "\\end{pmatrix} \\begin{pmatrix} x_i \\\\ x_{i+d/2} \\end{pmatrix}$$\n\n"
            "The matrix is never built: two products and one swap of halves do the same. Pairs are $(i, i + d/2)$, as "
            "in Llama's code, and not $(2i, 2i+1)$, as in the paper; the two differ by a fixed permutation."
        ),
        Code(inspect.getsource(rope_tables) + "\n\n" + inspect.getsource(rotate), "minigpt/positions.py"),
        turning(),
        frequencies(context),
        Heatmap(
            tuple(tuple(row) for row in cos[:, : D // 2].T.tolist()),
            "position m",
            "pair i",
            f"cos(m θ_i) for the {context} positions of training.",
            diverging=True,
        ),
    )
    return blocks, checks


# --- (b) In the attention ---------------------------------------------------------------------------------------


def scores_by_distance(
    starts: Sequence[int], distances: Sequence[int], generator: torch.Generator
) -> dict[int, Tensor]:
    """q·k of two fixed vectors, the query at start + distance and the key at start; one row for each start."""
    q, k = torch.randn(2, 1, 1, 1, D, generator=generator)
    found = {}
    for start in starts:
        tables = rope_tables(torch.tensor([start, *(start + d for d in distances)]), D)
        key = rotate(k, *(t[:1] for t in tables))[0, 0]
        queries = rotate(q.expand(1, 1, len(distances), D), *(t[1:] for t in tables))[0, 0]
        found[start] = (queries @ key.T)[:, 0]
    return found


def additive_spread(starts: Sequence[int], distance: int, generator: torch.Generator) -> float:
    """The same with sinusoids added to q and k: how much the score at one distance varies with the start."""
    q, k = torch.randn(2, D, generator=generator)
    table = sinusoidal(torch.arange(max(starts) + distance + 1), D)
    scores = torch.stack([(q + table[start + distance]) @ (k + table[start]) for start in starts])
    return (scores.max() - scores.min()).item()


class RestartingCache(KVCache):
    """The usual mistake: it stores every key, but tells the model that each new token is at position 0."""

    filled = 0

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """As ``KVCache.update``."""
        self.length = self.filled
        found = super().update(layer, k, v)
        self.length = 0
        return found

    def advance(self, count: int) -> None:
        """Count, where the model does not look."""
        self.filled += count


@torch.inference_mode()
def cached_logits(model: GPT, tokens: Tensor, cache: KVCache) -> Tensor:
    """Logits of (1, T) tokens read one by one, (1, T, V)."""
    return torch.cat([model(token, cache=cache) for token in torch.split(tokens, 1, dim=1)], dim=1)


def difference_from_llama_model(generator: torch.Generator) -> float:
    """Largest difference of the outputs of a random Llama and the same with our attention in place of its own."""
    from transformers import LlamaConfig, LlamaModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        host = LlamaModel(
            LlamaConfig(vocab_size=50, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
        )
    config = GPTConfig(n_layer=2, n_head=4, d_model=64, context=64, position="rope", bias=False)
    tokens = torch.randint(50, (2, 48), generator=generator)
    with torch.inference_mode():
        ours, theirs = (model(tokens).last_hidden_state for model in (with_our_attention(host, config), host))
    return float((ours - theirs).abs().max())


@dataclass(frozen=True)
class CacheTrap:
    """Reading one token at a time, with the right positions and with positions that restart at 0."""

    right: float  # largest difference of the logits from reading at once
    wrong: float
    nats: float  # loss of reading at once, per token
    wrong_nats: float


def cache_trap(model: GPT, tokens: Tensor) -> CacheTrap:
    """What restarting positions do to a trained model, on (1, T + 1) tokens."""
    text, targets = tokens[:, :-1], tokens[0, 1:]
    with torch.inference_mode():
        whole = model(text)
    right, wrong = (
        cached_logits(model, text, kind(model.config, 1, text.shape[1], device=text.device))
        for kind in (KVCache, RestartingCache)
    )
    losses = [torch.nn.functional.cross_entropy(logits[0], targets).item() for logits in (whole, wrong)]
    return CacheTrap((right - whole).abs().max().item(), (wrong - whole).abs().max().item(), *losses)


def part_b(ctx: Context, model: GPT, tokens: Tensor) -> tuple[tuple[Block, ...], list[Check], dict[str, float]]:
    """Where the rotation enters, and what it gives: scores of relative position."""
    starts, distances = (0, 10, 100, 400), tuple(range(0, 65, 2))
    scores = scores_by_distance(starts, distances, ctx.generator("scores"))
    stacked = torch.stack(list(scores.values()))
    spread = (stacked.max(dim=0).values - stacked.min(dim=0).values).max().item()
    additive = additive_spread(starts, 8, ctx.generator("scores"))
    trap = cache_trap(model, tokens[None, : ctx.numbers["trap_tokens"] + 1])
    checks = [
        Check.at_most("q·k at one distance, from different starts (largest spread)", spread, 1e-3),
        Check.at_most(
            "a Llama with our attention in place of its own (max difference)",
            difference_from_llama_model(ctx.generator("host")),
            1e-5,
        ),
        Check.at_most("reading token by token with a cache = reading at once (max difference)", trap.right, 1e-3),
        Check.at_least("a cache whose positions restart at 0 is noticed (max difference)", trap.wrong, 1e-2),
    ]
    blocks = (
        Prose(
            "Queries and keys are turned after their projection and before the product; values are not. Rotations "
            "compose, so that $(R_m q)^\\top (R_n k) = q^\\top R_{n-m}\\, k$: the score knows the distance only."
        ),
        Code(inspect.getsource(CausalSelfAttention.forward), "minigpt/model.py, CausalSelfAttention.forward"),
        Figure(
            "line",
            tuple(Series(f"key at {s}", tuple(map(float, distances)), tuple(scores[s].tolist())) for s in starts),
            "distance (query position − key position)",
            "q·k",
            f"Two fixed vectors at different places: the lines lie on each other (largest gap {spread:.1g}). With "
            f"sinusoids added to the vectors instead, the score at distance 8 varies by {additive:.2f}.",
        ),
        Prose(
            "**A trap.** A cached step reads one token, and code that counts positions from the start of *its input* "
            "puts each new token at position 0. Keys carry their rotation into the cache, so that nothing crashes. On "
            f"{ctx.numbers['trap_tokens']} validation tokens this takes the trained model from {trap.nats:.2f} to "
            f"{trap.wrong_nats:.2f} nats per token."
        ),
    )
    measured = {
        "score_spread_rope": spread,
        "score_spread_sinusoidal": additive,
        "cache_trap_loss_nats": trap.wrong_nats,
        "cache_right_loss_nats": trap.nats,
    }
    return blocks, checks, measured


# --- (d) Beyond the training length ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Extrapolation:
    """Losses by bucket of positions: label → one list per seed."""

    bucket: int
    context: int
    length: int
    losses: Mapping[str, list[list[float]]]
    refusal: str  # what the model with learned positions says

    @property
    def edges(self) -> list[tuple[int, int]]:
        """First and last position of each bucket, counted from 1."""
        return [(first + 1, first + self.bucket) for first in range(0, self.length, self.bucket)]

    def at(self, label: str, bucket: int) -> list[float]:
        """One bucket's losses, over the seeds."""
        return [seed[bucket] for seed in self.losses[label]]

    @property
    def last_inside(self) -> int:
        """The last bucket that training has seen."""
        return self.context // self.bucket - 1

    def mean(self, label: str, bucket: int) -> float:
        """One bucket's loss, mean over the seeds."""
        return mean_std(self.at(label, bucket))[0]

    def good_until(self, label: str) -> int:
        """The last position up to which no bucket costs more than TOLERATED above the restarted RoPE model's."""
        until = 0
        for bucket, (_, last) in enumerate(self.edges):
            if self.mean(label, bucket) > self.mean("RoPE, restarted", bucket) + TOLERATED:
                break
            until = last
        return until


def extrapolate(ctx: Context, rows: Sequence[Variant], tokens: Tensor) -> Extrapolation:
    """Read windows of several times the training length with every model that can."""
    context = rows[0].models[0].model.config.context
    length, bucket = ctx.numbers["times_longer"] * context, context // 2
    losses: dict[str, list[list[float]]] = {}
    for row in rows:
        for trained in row.models:
            model = trained.model
            if row.label in ("learned positions", "RoPE"):  # learned ones cannot go on, so they start again
                again = losses_by_bucket(model, tokens, length, bucket, restart=context)
                losses.setdefault(f"{row.label}, restarted", []).append(again)
            if row.label == "learned positions":
                continue
            ways = readings(model, length) if row.label == "RoPE" else {row.label: model}
            for label, way in ways.items():
                losses.setdefault(label, []).append(losses_by_bucket(way, tokens, length, bucket))
    try:
        rows[0].models[0].model(tokens[None, : context + 1])
        refusal = "nothing: it went on"
    except ValueError as error:
        refusal = str(error)
    return Extrapolation(bucket, context, length, losses, refusal)


def extrapolation_table(found: Extrapolation) -> Table:
    """Loss by bucket and reading."""
    columns = ("positions", *found.losses)
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (f"{first}–{last}", *(found.mean(label, bucket) for label in found.losses))
        for bucket, (first, last) in enumerate(found.edges)
    )
    caption = (
        f"Nats per token by position in windows of {found.length}, mean over seeds; all were trained on windows of "
        f"{found.context}."
    )
    return Table(columns, rows, caption, "extrapolation")


def extrapolation_figure(found: Extrapolation) -> Figure:
    """The table as lines."""
    x = tuple(float(last) for _, last in found.edges)
    series = []
    for label in found.losses:
        means, spreads = zip(*(mean_std(found.at(label, b)) for b in range(len(x))), strict=True)
        series.append(Series(label, x, means, spreads if len(found.losses[label]) > 1 else ()))
    caption = f"Loss by position (end of the bucket of {found.bucket}). Training ended at {found.context}."
    return Figure("line", tuple(series), "position in the window", "loss (nats/token)", caption)


def extrapolation_sentences(found: Extrapolation) -> str:
    """What the data allow to say of plain RoPE in the last bucket."""
    inside, last = found.last_inside, len(found.edges) - 1
    (a, b), (c, d) = found.edges[inside], found.edges[last]
    beyond = compare(found.at("RoPE", inside), found.at("RoPE", last))
    verdict = {
        "higher": "It does not extrapolate for free.",
        "noise": "Here it goes on without a loss that the seeds could show.",
        "lower": "The longer context even helps.",
        "one seed": "",
    }[beyond.verdict]
    said = describe(beyond, f"RoPE at positions {c}–{d}", f"RoPE at positions {a}–{b}", quantity="loss")
    return f"{said} {verdict}".strip()


def remedies(found: Extrapolation) -> Table:
    """Every other reading against plain RoPE, in the last bucket."""
    last = len(found.edges) - 1
    first_position, last_position = found.edges[last]
    rows: list[tuple[Cell, ...]] = []
    for label in found.losses:
        loss, until = found.mean(label, last), found.good_until(label)
        if label == "RoPE":
            rows.append((label, loss, None, None, None, "baseline", until))
            continue
        remedy = compare(found.at("RoPE", last), found.at(label, last))
        low, high = remedy.interval if remedy.verdict != "one seed" else (None, None)
        rows.append((label, loss, remedy.difference, low, high, remedy.verdict, until))
    columns = ("reading", "loss", "difference", "95% interval from", "to", "verdict", "good until position")
    caption = (
        f"Positions {first_position}–{last_position}: nats per token, mean over seeds, against plain RoPE there. Good: "
        f"no bucket up to there costs over {TOLERATED:g} nats more than the restarted RoPE model on the same tokens."
    )
    return Table(columns, tuple(rows), caption, "remedies")


def remedy_sentence(found: Extrapolation) -> str:
    """Which reading carries how far, in words."""
    last, inside = len(found.edges) - 1, found.last_inside
    others = [label for label in found.losses if label.startswith("RoPE, ") and label != "RoPE, restarted"]
    best = min(others, key=lambda label: found.mean(label, last))
    restarted, interpolated = found.mean("RoPE, restarted", last), "RoPE, positions interpolated"
    cost = found.mean(interpolated, inside) - found.mean("RoPE", inside)
    until = ", ".join(f"“{label.removeprefix('RoPE, ')}” {found.good_until(label)}" for label in others)
    return (
        f"Within {TOLERATED:g} nats of starting again, plain RoPE reads on up to position {found.good_until('RoPE')} "
        f"({until}; 0: not even inside the trained length). Of the three changed readings "
        f"“{best.removeprefix('RoPE, ')}” has the lowest loss at the end, {found.mean(best, last):.2f} nats, where "
        f"starting again costs {restarted:.2f}: to read on is worth while only below that. Interpolation changes the "
        f"loss inside the trained length already, by {cost:+.2f} nats."
    )


def part_d(ctx: Context, rows: Sequence[Variant], tokens: Tensor) -> tuple[tuple[Block, ...], dict[str, float], str]:
    """Reading further than was ever trained."""
    found = extrapolate(ctx, rows, tokens)
    rope = rows[1].models[0]
    prompt = tokens[None, : found.context // 2]
    text = generate(
        rope.model, prompt, found.length - prompt.shape[1], generator=ctx.generator("text"), limit=found.length
    )[0].tolist()
    blocks = (
        extrapolation_figure(found),
        extrapolation_table(found),
        Prose(extrapolation_sentences(found)),
        remedies(found),
        Prose(remedy_sentence(found)),
        Prose(
            f"*Learned positions* end at {found.context}: there is no row for the next one, and the model refuses "
            "(below). The lines called *restarted* start again at every multiple of the training length and score the "
            "same tokens. *Interpolation* divides all positions by the factor by which the text is longer (Chen et "
            "al., 2023, section 2.3), which keeps every angle in the trained range but packs neighbours closer; the "
            "authors then fine-tune, here nothing is trained. The *NTK-aware* base (bloc97, 2023; Peng et al., 2023, "
            "section 3.1) stretches a pair the more the slower it is, and the fastest not at all. A *window* of the "
            "training length at reading time never shows the model a distance it does not know, and gives up the rest "
            "of the text."
        ),
        Code(f"ValueError: {found.refusal}", f"The learned model asked for position {found.context + 1}."),
        Sample(
            f"RoPE model, {found.length} tokens",
            rope.tokenizer.decode(text[: prompt.shape[1]]),
            rope.tokenizer.decode(text[prompt.shape[1] :]),
            f"seed {rope.recipe.seed}, temperature 1; trained on windows of {found.context}",
        ),
    )
    measured = {}
    for label in found.losses:
        key = label.lower().replace(",", "").replace("-", "_").replace(" ", "_")
        for bucket, (first, last) in enumerate(found.edges):
            mean, spread = mean_std(found.at(label, bucket))
            measured[f"loss_nats_{key}_positions_{first}_{last}"] = mean
            if len(found.losses[label]) > 1:
                measured[f"loss_nats_{key}_positions_{first}_{last}_std"] = spread
        measured[f"good_until_position_{key}"] = found.good_until(label)
    inside, beyond = (found.mean("RoPE", b) for b in (found.last_inside, len(found.edges) - 1))
    summary = f"from {inside:.2f} to {beyond:.2f} nats at {found.length // found.context} times the training length"
    return blocks, measured, summary


def answer(ctx: Context) -> Answer:
    """All four parts."""
    rows = variants(ctx, TRAINED)
    learned, rope = rows[0], rows[1]
    tokens = ctx.tokens(STUDY_ROPE)
    context = rope.models[0].model.config.context
    a, checks = part_a(ctx, context)
    ctx.progress(0.2, "the rotation compared")
    b, more, measured = part_b(ctx, rope.models[0].model, tokens)
    d, by_position, beyond = part_d(ctx, rows, tokens)
    better = compare(learned.losses, rope.losses)
    verdict = Check(
        "RoPE reaches a lower validation loss than learned positions (Su et al., 2021, section 4)",
        "empirical",
        better.difference,
        "< 0 beyond the noise",
        better.verdict == "lower",
    )
    c = (
        table(rows, name="trained", caption=f"Trained on windows of {context} tokens."),
        curves(rows, caption="Validation loss in training."),
        Prose(sentences(rows)),
    )
    return Answer(
        summary=f"Validation loss {format_mean_std(rope.losses)} nats with RoPE against "
        f"{format_mean_std(learned.losses)} with learned positions; RoPE goes {beyond}.",
        parts=(
            Part("a", a, "The rotation"),
            Part("b", b, "In the attention"),
            Part("c", c, "Trained, against learned positions"),
            Part("d", d, "Longer than in training"),
        ),
        checks=(*checks, *more, verdict),
        metrics=metrics(rows) | measured | by_position,
    )


EXERCISE = Exercise(
    id="21.25",
    title="Implement RoPE",
    recipes=tuple(TRAINED.values()),
    numbers={
        "smoke": {"positions": 64, "trap_tokens": 48, "times_longer": 4},
        "laptop": {"positions": 512, "trap_tokens": 256, "times_longer": 8},
        "gpu": {"positions": 512, "trap_tokens": 512, "times_longer": 8},
    },
    timed=True,
    seconds={"smoke": 2, "laptop": 8, "gpu": 8},
    answer=answer,
)
