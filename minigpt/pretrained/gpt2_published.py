"""What GPT-2 itself does where an exercise asks for it: published values and what its weights give, with sources.

The chapter is written for GPT-2. Where another model takes its place, these stand beside what was measured on that one.
Nothing here is read off the model that a run uses; what was computed says from what, and how.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class GPT2Value:
    """One number, or a list of heads, of GPT-2."""

    what: str
    value: float | str
    model: str  # which of the four sizes, and what was done with it
    source: str


# L2H11 is head 11 of layer 2, both from 0.
_WANG = (
    "Wang et al. (2022), arXiv:2211.00593, figure 2; the same heads in the authors' code, "
    "github.com/redwoodresearch/Easy-Transformer"
)
HEADS = {
    "previous token": GPT2Value("previous-token heads", "L2H2, L4H11", "small", _WANG),
    "induction": GPT2Value("induction heads", "L5H5, L5H8, L5H9, L6H9", "small", _WANG),
    "duplicate": GPT2Value("heads that look at an earlier copy of the same token", "L0H1, L0H10, L3H0", "small", _WANG),
}

# Shares of n-grams that occurred before, as in ``minigpt.evaluation.diversity.repetition``.
_LAN = (
    "Lan et al. (2023), Copy Is All You Need, table 1 (the Transformer baseline); "
    "github.com/gmftbyGMFTBY/Copyisallyouneed, evaluation/README.md"
)
_TUNED = "small, trained on WikiText-103"
REPEATED = {
    (way, n): GPT2Value(f"repeated {n}-grams, {name}", share, _TUNED, _LAN)
    for way, name, shares in (
        ("greedy", "greedy text", {2: 0.4356, 3: 0.3855, 4: 0.355}),
        ("nucleus", "nucleus sampling (p = 0.95)", {2: 0.051, 3: 0.0133, 4: 0.005}),
    )
    for n, share in shares.items()
}
_HOLTZMAN = "Holtzman et al. (2020), arXiv:1904.09751, table 1"
PERPLEXITY = {
    "greedy": GPT2Value("perplexity of greedy text under the model that wrote it", 1.50, "large", _HOLTZMAN),
    "plain": GPT2Value("perplexity of text sampled without truncation", 22.73, "large", _HOLTZMAN),
    "human": GPT2Value("perplexity of what people wrote", 12.38, "large", _HOLTZMAN),
}

_RADFORD = "Radford et al. (2019), table 3 (zero-shot)"
ZERO_SHOT = (
    GPT2Value("perplexity per word, WikiText-2", 29.41, "small", _RADFORD),
    GPT2Value("perplexity per word, WikiText-103", 37.50, "small", _RADFORD),
    GPT2Value("bits per byte, enwik8 (Wikipedia with its mark-up)", 1.16, "small", _RADFORD),
)

# Share of the heads whose mean attention to the first token, over all queries of 64 tokens, is above 0.3.
SINK_LENGTH, SINK_THRESHOLD = 64, 0.3
SINK_HEADS = GPT2Value(
    f"heads with more than {SINK_THRESHOLD:g} on the first of {SINK_LENGTH} random tokens",
    0.7029,
    "XL",
    "Gu et al. (2025), arXiv:2410.10781, table 1",
)

# Of GPT-2's position table, ``wpe``, by ``tasks.exercises.ex20_position_embeddings.experiment.study``: what a run says
# that has GPT-2 itself, computed once from the released weights (float32, SHA-256 as .npy
# 1094c21cb3b5cc6db2be773a6a6a21566206c2669fca889d3b1883ae77e9b3d1).
POSITION_TABLE_SIZE = (1024, 768)
_WEIGHTS = "computed from the released weights (wpe) by the functions of this exercise"
POSITION_TABLE = {
    name: GPT2Value(what, value, "small", _WEIGHTS)
    for name, what, value in (
        ("mean_cosine_adjacent", "mean cosine of adjacent positions", 0.99737),
        ("mean_cosine_half_apart", "mean cosine at least half the table apart", -0.14933),
        ("nearest_is_adjacent_share", "most similar position is adjacent (share)", 0.86816),
        ("half_similarity_positions", "mean cosine has fallen to a half after (positions)", 96.148),
        ("variance_explained_by_distance", "variance of the cosines explained by distance (share)", 0.80186),
        ("components_for_90_percent", "components for 90 % of the variance", 3),
        ("variance_two_components", "variance in two components (share)", 0.65761),
        ("variance_three_components", "variance in three components (share)", 0.90388),
        ("rotation_turns", "turns of the steadiest plane over the table", 3.6094),
        ("rotation_steady_share", "steps of it in one direction (share)", 0.99902),
        ("component_1_period_positions", "period of the first component (positions)", 512.0),
        ("norm_first", "norm of the first position", 9.8756),
        ("norm_median", "median norm", 3.3722),
    )
}
