"""What 21.17 measures: where heads look, what the model expects of tokens that repeat, what it loses without heads."""

from dataclasses import dataclass

from minigpt.evaluation.statistics import Comparison, compare_paired, mean_std

Head = tuple[int, int]  # layer, head within the layer, from 0
KINDS = {
    "previous": "previous token",
    "first": "first token",
    "own": "own token",
    "punctuation": "punctuation",
    "same": "same token earlier",
    "induction": "induction",
}
SHARE, TIMES = 0.5, 3  # what gives a head a name: so much of its attention, so many times a blind head's share


@dataclass(frozen=True)
class Scores:
    """One kind of key: the share of its attention that every head gives to such keys."""

    rows: tuple[tuple[tuple[float, ...], ...], ...]  # [row][layer][head]
    mean: tuple[tuple[float, ...], ...]  # [layer][head]
    blind: float  # the share of uniform attention, mean over rows
    control: tuple[tuple[float, ...], ...] | None  # [layer][head]: of the same places, where nothing repeats
    ranked: tuple[Head, ...]  # all heads, highest mean first
    named: tuple[Head, ...]  # those that pass, highest first

    @property
    def best(self) -> Head:
        """The highest that is named, or the highest of all where none is."""
        return (self.named or self.ranked)[0]

    def of(self, head: Head) -> list[float]:
        """The share of one head in every row."""
        return [row[head[0]][head[1]] for row in self.rows]

    def mean_of(self, head: Head) -> float:
        """The mean share of one head."""
        return self.mean[head[0]][head[1]]

    def control_of(self, head: Head) -> float:
        """The share of one head at the same places, where nothing repeats."""
        assert self.control is not None
        return self.control[head[0]][head[1]]

    @property
    def best_share(self) -> tuple[float, float]:
        """Of the best head, mean and standard deviation over rows."""
        return mean_std(self.of(self.best))


@dataclass(frozen=True)
class Sentence:
    """A sentence as the model reads it."""

    name: str
    pieces: tuple[str, ...]  # tokens
    came_before: tuple[bool, ...]  # whether the same token stands earlier in the sentence
    shares: dict[str, float | None]  # of the best head of each kind; None where there is no such key
    maps: tuple[tuple[tuple[tuple[float, ...], ...], ...], ...]  # [drawn layer][drawn head][query][key], rounded


@dataclass(frozen=True)
class Curve:
    """Loss by distance from the first token that can be copied."""

    distances: tuple[int, ...]
    means: tuple[float, ...]  # nats
    errors: tuple[float, ...]  # standard error over rows


@dataclass(frozen=True)
class Copying:
    """Losses in rows of random tokens, nats; each row repeats with a period of its own."""

    length: int  # tokens of a row
    periods: tuple[int, ...]  # one per row
    first: tuple[float, ...]  # mean loss of each row before tokens repeat
    repeated: tuple[float, ...]  # from where they do
    control: tuple[float, ...]  # at the same places of rows that do not repeat
    curve: Curve  # where tokens repeat
    control_curve: Curve
    after: tuple[float, ...]  # mean loss of the first token that can be copied, and of those that follow

    @property
    def change(self) -> Comparison:
        """From before the repetition to it, paired over rows."""
        return compare_paired(self.first, self.repeated)

    @property
    def tokens_to_half(self) -> int | None:
        """Tokens until the loss is more than half of the way down; None where it does not fall at once."""
        start, lowest = mean_std(self.first)[0], min(self.after)
        if self.change.verdict != "lower" or lowest >= start:
            return None
        return next(place for place, loss in enumerate(self.after) if loss < (start + lowest) / 2)


@dataclass(frozen=True)
class Ablation:
    """Losses without some heads: in rows that repeat, and in text."""

    name: str
    heads: tuple[Head, ...]
    first: tuple[float, ...]  # loss per row before tokens repeat, nats
    repeated: tuple[float, ...]  # from where they do
    text: float  # in held-out text


@dataclass(frozen=True)
class Accuracy:
    """The maps and the scores against what must hold of them."""

    row_sums: float  # largest distance from 1
    future: float  # largest weight on a later token
    blind_error: float  # largest error of a blind head's share
    planted_share: float  # of a head that gives 4/5 to the token before
    planted_expected: float
    planted_named: tuple[Head, ...]  # of three heads, the second of which is the planted one
    next_token: float | None  # share of the keys of induction that hold the token that comes next
    rebuilt: float | None  # relative error of maps times values against the heads' outputs; None where unknown


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    model: str
    note: str  # about the model
    vocab_size: int
    window: int  # tokens of a window of text
    scores: dict[str, Scores]  # by kind of key
    sentences: tuple[Sentence, ...]
    drawn: dict[int, tuple[int, ...]]  # layer: heads
    copying: Copying | None  # None where the model knows too few tokens for rows that repeat and rows that do not
    ablations: tuple[Ablation, ...]  # nothing removed, best for induction, for the previous token, random ones
    beside_previous: tuple[Ablation, ...]  # random ones again, of the layers of those for the previous token
    untested: str  # why there are no ablations; "" where there are some
    accuracy: Accuracy

    @property
    def heads(self) -> int:
        """Of the model."""
        return len(self.scores["previous"].ranked)

    @property
    def named(self) -> set[Head]:
        """Heads with at least one name."""
        return {head for s in self.scores.values() for head in s.named}

    @property
    def drawn_heads(self) -> list[Head]:
        """Heads whose maps are shown."""
        return [(layer, number) for layer, numbers in self.drawn.items() for number in numbers]

    @property
    def below(self) -> list[Head]:
        """Named previous-token heads that lie below at least one induction head."""
        highest = max((layer for layer, _ in self.scores["induction"].named), default=0)
        return [head for head in self.scores["previous"].named if head[0] < highest]

    @property
    def above(self) -> list[Head]:
        """Induction heads above at least one named previous-token head."""
        previous = self.scores["previous"].named
        return [head for head in self.scores["induction"].named if any(layer < head[0] for layer, _ in previous)]

    @property
    def copied(self) -> dict[str, float]:
        """The best induction head in the sentences that have something to copy."""
        shares = {sentence.name: sentence.shares.get("induction") for sentence in self.sentences}
        return {name: share for name, share in shares.items() if share is not None}

    @property
    def rises(self) -> tuple[list[float], list[float]]:
        """Change of each row's loss in the repetitions, nats: without the best heads, without random ones (mean)."""
        _, chosen, _, *draws = self.ablations
        return self._rises(chosen), self._rises(*draws)

    def _rises(self, *removed: Ablation) -> list[float]:
        """Change of each row's loss in the repetitions, nats, mean over several removals."""
        rows = zip(self.ablations[0].repeated, *(each.repeated for each in removed), strict=True)
        return [sum(after) / len(after) - before for before, *after in rows]

    @property
    def cost(self) -> Comparison:
        """Removing the best induction heads against removing random ones, paired over rows."""
        chosen, random = self.rises
        return compare_paired(random, chosen)

    @property
    def without_previous(self) -> Comparison:
        """Loss where tokens repeat without previous-token heads against that with all heads, paired over rows."""
        return compare_paired(self.ablations[0].repeated, self.ablations[2].repeated)

    @property
    def previous_or_random(self) -> Comparison:
        """What removing previous-token heads costs beyond the dearest random ones of their layers, paired over rows.

        The dearest, and not their mean: which heads chance takes is not in an interval over rows.
        """
        dearest = max((self._rises(each) for each in self.beside_previous), key=sum)
        return compare_paired(dearest, self._rises(self.ablations[2]))

    @property
    def random_costs(self) -> list[float]:
        """Mean rise without each of those random sets, nats."""
        return [mean_std(self._rises(each))[0] for each in self.beside_previous]

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        found: dict[str, float | int] = {"heads": self.heads}
        for kind, s in self.scores.items():
            share, spread = s.best_share
            found[f"share_{kind}_best"], found[f"share_{kind}_best_std"] = share, spread
            found[f"share_{kind}_layer_{s.best[0]}_head_{s.best[1]}"] = share
            found[f"share_{kind}_blind"] = s.blind
            found[f"heads_named_{kind}"] = len(s.named)
        induction = self.scores.get("induction")
        if induction is not None and induction.control is not None:
            found["share_induction_best_no_repetition"] = induction.control_of(induction.best)
        if self.copying is not None:
            found["loss_before_repetition_nats"] = mean_std(self.copying.first)[0]
            found["loss_in_repetition_nats"] = mean_std(self.copying.repeated)[0]
            found["loss_same_places_no_repetition_nats"] = mean_std(self.copying.control)[0]
        if self.ablations:
            chosen, random = self.rises
            found["loss_change_without_induction_heads_nats"] = mean_std(chosen)[0]
            found["loss_change_without_random_heads_nats"] = mean_std(random)[0]
            name = "loss_change_induction_less_random_heads"
            found[f"{name}_nats"] = self.cost.difference
            found[f"{name}_low_nats"], found[f"{name}_high_nats"] = self.cost.interval
            found["heads_removed"] = len(self.ablations[1].heads)
            found["loss_text_nats"] = self.ablations[0].text
            found["loss_text_without_induction_heads_nats"] = self.ablations[1].text
        return found


def name_of(*heads: Head) -> str:
    """As readers see them: layer and head, from 0."""
    return ", ".join(f"L{layer}H{number}" for layer, number in heads)
