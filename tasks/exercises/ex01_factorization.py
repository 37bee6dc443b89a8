"""Exercise 21.1: a sentence as a product of conditionals, written out, counted, and evaluated by real models."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.evaluation.evaluate import token_losses
from minigpt.model import GPT
from reports.types import Answer, Block, Check, Part, Prose, Table
from tasks.exercise import Context, Exercise, Pretrained, TrainedModel
from tasks.recipes.catalogue import STUDY

SENTENCE = "The cat sat on the mat"
WORDS = SENTENCE.split()
TINY = GPTConfig(n_layer=2, n_head=2, d_model=16, context=8, vocab_size=4)

Logits = Callable[[Tensor], Tensor]  # (B, T) ids -> (B, T, V)


@dataclass(frozen=True)
class Factor:
    """One conditional of the product."""

    piece: str  # the token's text
    probability: float
    rank: int  # among all tokens, 1 is the likeliest
    guess: str  # the likeliest token's text

    @property
    def nats(self) -> float:
        """Negative log-likelihood."""
        return -math.log(self.probability)


@torch.inference_mode()
def factors(logits: Logits, start: Sequence[int], ids: Sequence[int], decode: Callable[[int], str]) -> list[Factor]:
    """All conditionals of ``ids`` after ``start`` from a single forward pass."""
    tokens = torch.tensor([[*start, *ids]])
    distributions = logits(tokens[:, :-1])[0, len(start) - 1 :].double().softmax(dim=-1)  # (n, V)
    result = []
    for token, p in zip(ids, distributions, strict=True):
        rank = int((p > p[token]).sum()) + 1
        result.append(Factor(decode(token), p[token].item(), rank, decode(int(p.argmax()))))
    return result


@torch.inference_mode()
def one_by_one(logits: Logits, start: Sequence[int], ids: Sequence[int]) -> list[float]:
    """The same probabilities from one forward pass for each prefix, as the formula is read."""
    probabilities = []
    for i, token in enumerate(ids):
        p = logits(torch.tensor([[*start, *ids[:i]]]))[0, -1].double().softmax(dim=-1)
        probabilities.append(p[token].item())
    return probabilities


def by_word(found: Sequence[Factor]) -> list[list[Factor]]:
    """Factors grouped into words: a token that begins with a space begins a word."""
    words: list[list[Factor]] = []
    for factor in found:
        if not words or factor.piece.startswith(" "):
            words.append([])
        words[-1].append(factor)
    return words


class Scorer:
    """A model with its tokenizer and a token to start from, whatever library it comes from."""

    def __init__(
        self, name: str, logits: Logits, encode: Callable[[str], list[int]], decode: Callable[[int], str], start: int
    ) -> None:
        self.name, self.logits, self.encode, self.decode, self.start = name, logits, encode, decode, start

    def factors(self, text: str = SENTENCE, start: int | None = None) -> list[Factor]:
        """The conditionals of a text."""
        return factors(self.logits, [self.start if start is None else start], self.encode(text), self.decode)


def special_tokens(tokenizer: Any) -> list[int]:
    """What may stand for a beginning, best first: the mark between training documents, then the tokenizer's own."""
    known = tokenizer.get_vocab()
    ids = (known.get("<|endoftext|>"), tokenizer.bos_token_id, tokenizer.eos_token_id)
    return list(dict.fromkeys(i for i in ids if i is not None))


def pretrained_scorer(pretrained: Pretrained) -> Scorer:
    """The pretrained model; it starts from a special token, or from a line break where it has none."""
    tokenizer, model = pretrained.tokenizer, pretrained.model

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    return Scorer(
        pretrained.name,
        lambda tokens: model(tokens.to(model.device)).logits.cpu(),
        encode,
        lambda token: tokenizer.decode([token]),
        (special_tokens(tokenizer) or encode("\n"))[0],
    )


def study_scorer(trained: TrainedModel) -> Scorer:
    """The character model; it starts from a line break, as the corpus has no token of its own for a beginning."""
    tokenizer, device = trained.tokenizer, trained.model.unembedding.weight.device
    return Scorer(
        "the character model",
        lambda tokens: trained.model(tokens.to(device)).cpu(),
        tokenizer.encode,
        lambda token: tokenizer.decode([token]),
        tokenizer.encode("\n")[0],
    )


def answer(context: Context) -> Answer:
    """The exercise has no lettered parts."""
    pretrained, trained = context.pretrained(), context.model(STUDY)
    real, characters = pretrained_scorer(pretrained), study_scorer(trained)
    found, spelled = real.factors(), characters.factors()
    sums = tiny_sums(context.numbers["length"])
    metrics: dict[str, float | int] = {
        "conditional_distributions": len(WORDS),
        "pretrained_tokens": len(found),
        "pretrained_probability": math.prod(f.probability for f in found),
        "pretrained_nll_nats": sum(f.nats for f in found),
        "pretrained_perplexity": math.exp(sum(f.nats for f in found) / len(found)),
        **{f"pretrained_conditional_probability_{i + 1}": f.probability for i, f in enumerate(found)},
        "character_tokens": len(spelled),
        "character_probability": math.prod(f.probability for f in spelled),
        "character_nll_nats": sum(f.nats for f in spelled),
        **{f"tiny_vocabulary_total_probability_length_{n}": total for n, _, total in sums},
        "tiny_vocabulary_largest_sum_error": max(abs(total - 1) for _, _, total in sums),
    }
    total = metrics["pretrained_nll_nats"]
    read_as = "" if len(found) == len(WORDS) else f", read as {len(found)} tokens,"
    return Answer(
        summary=f"{len(WORDS)} conditional distributions, one forward pass; under {pretrained.name} the "
        f"sentence{read_as} has probability {metrics['pretrained_probability']:.2e} = exp(-{total:.2f}).",
        parts=(
            Part(
                "",
                (
                    *written_out(),
                    *evaluated(real, found),
                    *in_characters(spelled),
                    *beginnings(pretrained, real, characters),
                    *total_probability(sums),
                ),
                "the factorization, its terms and their number",
            ),
        ),
        checks=checks(pretrained, trained, real, characters, sums),
        metrics=metrics,
        notes=(pretrained.note,) if pretrained.note else (),
    )


def terms() -> list[str]:
    """The six terms as formulas."""
    found = []
    for i, word in enumerate(WORDS):
        given = rf" \mid \text{{{' '.join(WORDS[:i])}}}" if i else ""
        found.append(rf"P(\text{{{word}}}{given})")
    return found


def written_out() -> tuple[Block, ...]:
    """The product, written out."""
    lines = r" \\ &\times ".join(terms())
    return (
        Prose(
            "The chain rule of probability, with each word a token:\n\n"
            rf"$$\begin{{aligned}} P(\text{{{SENTENCE}}}) = {{}} & {lines} \end{{aligned}}$$"
            f"\n\nThat is {len(terms())} terms, so the model evaluates **{len(WORDS)} conditional distributions**, one "
            r"per position, each over the whole vocabulary: $P(x_1, \dots, x_T) = \prod_{t=1}^{T} P(x_t \mid "
            r"x_{<t})$ holds "
            "for every joint distribution, without any independence assumed, and would hold for any other order of the "
            "words: reading from left to right is a choice. The first term has nothing to its left. A model needs "
            "something to read, a start token, so in "
            r"practice it is $P(\text{The} \mid \text{start})$. And “The” and “the” are two different tokens."
        ),
        Table(
            columns=("t", "predicts", "given", "term"),
            rows=tuple(
                (i + 1, word, " ".join(WORDS[:i]) or "(start)", f"P({word} | {' '.join(WORDS[:i]) or 'start'})")
                for i, word in enumerate(WORDS)
            ),
            caption="The terms of the product",
            name="terms",
        ),
    )


def evaluated(scorer: Scorer, found: list[Factor]) -> tuple[Block, ...]:
    """The product with the pretrained model."""
    total, product = sum(f.nats for f in found), math.prod(f.probability for f in found)
    fits = [len(word) for word in by_word(found)] == [1] * len(WORDS)
    tokens = (
        f"It splits the sentence into {len(found)} tokens, one for each word"
        if fits
        else f"Its tokenizer makes {len(found)} tokens of the {len(WORDS)} words, and its product has as many terms"
    )
    hardest = max(by_word(found), key=lambda word: sum(f.nats for f in word))
    rows, running = [], 1.0
    for i, factor in enumerate(found):
        running *= factor.probability
        rows.append((i + 1, factor.piece, factor.probability, factor.nats, factor.rank, factor.guess, running))
    return (
        Prose(
            f"**Evaluated by {scorer.name}.** {tokens}. The product of the conditionals is {product:.3e}, the same as "
            rf"$\exp(-\sum_t \text{{NLL}}_t) = \exp(-{total:.3f})$; sums of logarithms are what programs use, because "
            "products of many probabilities underflow. The perplexity is the inverse of the conditionals' geometric "
            f"mean, {math.exp(total / len(found)):.1f} here. The most expensive word is "
            f"“{WORDS[word_index(found, hardest)]}” with {sum(f.nats for f in hardest):.2f} nats. All terms come out "
            "of *one* forward pass: the causal mask lets position $t$ see only what stands before it."
        ),
        Table(
            columns=("t", "token", "P(token | before)", "NLL (nats)", "rank", "likeliest token", "product so far"),
            rows=tuple(rows),
            caption=f"The conditionals under {scorer.name}",
            name="pretrained_factors",
        ),
    )


def word_index(found: list[Factor], word: list[Factor]) -> int:
    """Which word of the sentence a group of factors is."""
    return min(by_word(found).index(word), len(WORDS) - 1)


def in_characters(spelled: list[Factor]) -> tuple[Block, ...]:
    """The same sentence as characters."""
    rows = [
        (
            WORDS[i] if i < len(WORDS) else "",
            "".join(f.piece for f in word),
            len(word),
            math.prod(f.probability for f in word),
            sum(f.nats for f in word),
        )
        for i, word in enumerate(by_word(spelled))
    ]
    return (
        Prose(
            f"**Tokens are a choice.** A character model trained here reads the same sentence as {len(spelled)} "
            f"tokens and evaluates {len(spelled)} distributions. Grouped by word, with the space in front belonging "
            "to the word, the product has one factor for each word again. They are probabilities of the word's "
            "letters as a beginning: “ cat” includes “ cattle”, and only the next space or stop ends it."
        ),
        Table(
            columns=("word", "characters", "distributions", "P(characters | before)", "NLL (nats)"),
            rows=tuple(rows),
            caption="Products of character conditionals, grouped by word",
            name="character_factors",
        ),
    )


def beginnings(pretrained: Pretrained, real: Scorer, characters: Scorer) -> tuple[Block, ...]:
    """How much depends on the start token, and on the capital of the first word."""
    starts = dict.fromkeys([*special_tokens(pretrained.tokenizer), *real.encode("\n")[:1], *real.encode(".")[:1]])
    capital, small = WORDS[0], WORDS[0].lower()
    rows = []
    for scorer, choices in ((real, list(starts)), (characters, [characters.start])):
        for start in choices:
            p, q = (math.prod(f.probability for f in scorer.factors(word, start)) for word in (capital, small))
            whole = sum(f.nats for f in scorer.factors(SENTENCE, start))
            rows.append((scorer.name, repr(scorer.decode(start)), p, q, p / q, whole))
    ratios, wholes = [row[4] for row in rows], [row[5] for row in rows if row[0] == real.name]
    likelier = (
        "The capital is likelier after each of these" if min(ratios) > 1 else "Which is likelier depends on the start"
    )
    return (
        Prose(
            f"**The first term.** In a vocabulary of words “{capital}” and “{small}” are two tokens. {likelier}: the "
            f"ratio ranges from {min(ratios):.3g} to {max(ratios):.3g}. The start token is not a formality. With "
            f"{real.name} the whole sentence costs between {min(wholes):.1f} and {max(wholes):.1f} nats, depending "
            "on what stands in front of it; what is reported above begins with the first in the table."
        ),
        Table(
            columns=(
                *("model", "start", f"P({capital} | start)", f"P({small} | start)"),
                *("ratio", "NLL of the sentence (nats)"),
            ),
            rows=tuple(rows),
            caption="The first factor and the whole sentence for several starts",
            name="first_factor",
        ),
    )


@torch.inference_mode()
def tiny_sums(longest: int) -> list[tuple[int, int, float]]:
    """(n, number of sequences, sum of their probabilities) over all sequences of n tokens, under random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT(TINY).double().eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.7)  # far from uniform
    V, start = TINY.vocab_size, 0
    sums = []
    for n in range(1, longest + 1):
        sequences = torch.tensor(list(itertools.product(range(V), repeat=n)))
        tokens = F.pad(sequences, (1, 0), value=start)
        logs = model(tokens[:, :-1]).log_softmax(dim=-1).gather(-1, sequences[..., None])[..., 0]
        sums.append((n, len(sequences), logs.sum(dim=-1).exp().sum().item()))
    return sums


def total_probability(sums: list[tuple[int, int, float]]) -> tuple[Block, ...]:
    """All sequences of a length have probability 1 together."""
    V, n = TINY.vocab_size, len(WORDS)
    return (
        Prose(
            "**Is it a distribution?** If every conditional sums to 1, the probabilities of all sequences of a "
            f"length do. The table shows it for a GPT with random weights and a vocabulary of {V}. They sum to 1 for "
            "*each* length, so what is computed above is the probability that a text begins with these words; for "
            "the sentence alone one more "
            r"factor is needed, $P(\text{end} \mid \text{" + SENTENCE + r"})$. "
            f"A table of all conditionals for {n} tokens would need {' + '.join(['1', 'V', 'V²'])} + … + "
            f"V⁵ rows, {sum(V**i for i in range(n)):,} for $V = {V}$ and {sum(50_257**i for i in range(n)):.1e} for "
            "$V = 50257$: the network computes the rows that are needed."
        ),
        Table(
            columns=("length", "sequences", "sum of their probabilities"),
            rows=tuple(sums),
            caption="Sum over all sequences, random weights, fixed start token",
            name="total_probability",
        ),
    )


def checks(
    pretrained: Pretrained, trained: TrainedModel, real: Scorer, characters: Scorer, sums: list[tuple[int, int, float]]
) -> tuple[Check, ...]:
    """Products against sums, one pass against many, each model's own loss, total probability."""
    result = [Check.equal("terms of the product, one per word", len(terms()), len(WORDS))]
    for scorer in (real, characters):
        found, ids = scorer.factors(), scorer.encode(SENTENCE)
        total = sum(f.nats for f in found)
        error = abs(math.prod(f.probability for f in found) / math.exp(-total) - 1)
        result.append(Check.at_most(f"{scorer.name}: product against exp(-ΣNLL) (relative difference)", error, 1e-10))
        separate = one_by_one(scorer.logits, [scorer.start], ids)
        error = max(abs(math.log(f.probability / p)) for f, p in zip(found, separate, strict=True))
        claim = f"{scorer.name}: one pass against one pass per prefix (nats, largest difference)"
        result.append(Check.at_most(claim, error, 1e-3))
    tokens = torch.tensor([[real.start, *real.encode(SENTENCE)]], device=pretrained.model.device)
    with torch.inference_mode():
        own = pretrained.model(tokens, labels=tokens).loss.item() * (tokens.shape[1] - 1)
    total = sum(f.nats for f in real.factors())
    result.append(Check.close(f"{real.name}: ΣNLL against the model's own loss (nats)", total, own, 1e-2))
    line = torch.tensor(
        [characters.start, *characters.encode(SENTENCE)], device=trained.model.unembedding.weight.device
    )
    total = sum(f.nats for f in characters.factors())
    evaluated = token_losses(trained.model, line).sum().item()
    result.append(
        Check.close("the character model: ΣNLL against minigpt.evaluation.evaluate (nats)", total, evaluated, 1e-3)
    )
    for n, count, probability in sums:
        result.append(
            Check.close(f"all {count} sequences of {n} tokens: their probabilities sum to 1", probability, 1, 1e-12)
        )
    return tuple(result)


EXERCISE = Exercise(
    id="21.1",
    title="Autoregressive Factorization",
    answer=answer,
    recipes=(STUDY,),
    sources=("pretrained",),
    numbers={"smoke": {"length": 4}, "laptop": {"length": 6}, "gpu": {"length": 7}},
    seconds={"smoke": 2, "laptop": 5, "gpu": 10},
)
