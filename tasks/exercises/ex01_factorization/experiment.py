"""Measures 21.1: a sentence under two models, for several starts, and all short sequences of a tiny model."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.evaluation.evaluate import token_losses
from minigpt.model import GPT
from tasks.exercise import Context, Exercise, Pretrained, TrainedModel
from tasks.exercises.ex01_factorization.findings import SENTENCE, WORDS, Beginning, Factor, Findings, Reading, Total
from tasks.recipes.catalogue import STUDY

TINY = GPTConfig(n_layer=2, n_head=2, d_model=16, context=8, vocab_size=4)

Logits = Callable[[Tensor], Tensor]  # (B, T) ids -> (B, T, V)


def measure(context: Context) -> Findings:
    """Everything the answer rests on."""
    pretrained, trained = context.pretrained(), context.model(STUDY)
    real, characters = pretrained_scorer(pretrained), study_scorer(trained)
    return Findings(
        pretrained=real.reading(library_nats(pretrained, real)),
        characters=characters.reading(evaluated_nats(trained, characters)),
        note=pretrained.note,
        beginnings=beginnings(pretrained, real, characters),
        totals=tiny_sums(context.numbers["length"]),
        vocabulary=TINY.vocab_size,
    )


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


class Scorer:
    """A model with its tokenizer and a token to start from, whatever library it comes from."""

    def __init__(
        self, name: str, logits: Logits, encode: Callable[[str], list[int]], decode: Callable[[int], str], start: int
    ) -> None:
        self.name, self.logits, self.encode, self.decode, self.start = name, logits, encode, decode, start

    def factors(self, text: str = SENTENCE, start: int | None = None) -> list[Factor]:
        """The conditionals of a text."""
        return factors(self.logits, [self.start if start is None else start], self.encode(text), self.decode)

    def reading(self, own_nats: float) -> Reading:
        """The sentence after the start token; ``own_nats`` is what another calculation makes of the same."""
        separate = one_by_one(self.logits, [self.start], self.encode(SENTENCE))
        return Reading(self.name, tuple(self.factors()), tuple(separate), own_nats)


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


@torch.inference_mode()
def library_nats(pretrained: Pretrained, real: Scorer) -> float:
    """The sentence's sum by the loss that the pretrained model computes itself."""
    tokens = torch.tensor([[real.start, *real.encode(SENTENCE)]], device=pretrained.model.device)
    loss: float = pretrained.model(tokens, labels=tokens).loss.item()
    return loss * (tokens.shape[1] - 1)


def evaluated_nats(trained: TrainedModel, characters: Scorer) -> float:
    """The sentence's sum by the project's evaluation."""
    device = trained.model.unembedding.weight.device
    line = torch.tensor([characters.start, *characters.encode(SENTENCE)], device=device)
    return token_losses(trained.model, line).sum().item()


def beginnings(pretrained: Pretrained, real: Scorer, characters: Scorer) -> tuple[Beginning, ...]:
    """The first word, with capital and without, and the sentence, after each token that may stand for a beginning."""
    starts = dict.fromkeys([*special_tokens(pretrained.tokenizer), *real.encode("\n")[:1], *real.encode(".")[:1]])
    found = []
    for scorer, choices in ((real, list(starts)), (characters, [characters.start])):
        for start in choices:
            capital, small = (
                math.prod(f.probability for f in scorer.factors(word, start)) for word in (WORDS[0], WORDS[0].lower())
            )
            whole = sum(f.nats for f in scorer.factors(SENTENCE, start))
            found.append(Beginning(scorer.name, scorer.decode(start), capital, small, whole))
    return tuple(found)


@torch.inference_mode()
def tiny_sums(longest: int) -> tuple[Total, ...]:
    """The probabilities of all sequences of each length, under random weights."""
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
        sums.append(Total(n, len(sequences), logs.sum(dim=-1).exp().sum().item()))
    return tuple(sums)


EXERCISE = Exercise(
    measure=measure,
    recipes=(STUDY,),
    sources=("pretrained",),
    numbers={"smoke": {"length": 4}, "laptop": {"length": 6}, "gpu": {"length": 7}},
    seconds={"smoke": 2, "laptop": 5, "gpu": 10},
)
