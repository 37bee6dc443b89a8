"""How groups of words and tokens differ in 21.24, raw and with the position and more held equal."""

from collections.abc import Callable, Sequence

from minigpt.evaluation.stratified import stratified_difference
from minigpt.evaluation.word_losses import CONTENT, FUNCTION, LATER, Word
from tasks.exercise import Context
from tasks.exercises.ex24_loss_decomposition.findings import Comparison, Effect
from tasks.exercises.ex24_loss_decomposition.reading import Reading, position_bin

Control = tuple[str, Callable[[Word], object]]  # what else is held equal: its name, and its value for a word


def comparisons(ctx: Context, reading: Reading) -> tuple[Comparison, ...]:
    """All questions of (d)."""
    whole = reading.whole_words
    placed = [word for word in whole if word.place is not None]
    begins: Control = ("place in the sentence", lambda word: word.place == 0)
    kinds: Control = ("word class", lambda word: word.function)
    return (
        *compare_words(ctx, "sentence start", ("other words", "first words"), placed, lambda w: w.place == 0, kinds),
        *compare_words(ctx, "word class", ("function words", "content words"), whole, lambda w: not w.function, begins),
        compare_pieces(ctx, reading),
    )


def compare_words(
    ctx: Context, name: str, groups: tuple[str, str], words: list[Word], group: Callable[[Word], bool], more: Control
) -> list[Comparison]:
    """Two groups of words, by the loss of their first piece and by that of the whole word."""
    controls: dict[str, Callable[[Word], object]] = {
        "nothing": lambda word: 0,
        "position": lambda word: position_bin(word.position),
        f"position and {more[0]}": lambda word: (position_bin(word.position), more[1](word)),
    }
    measures: dict[str, Callable[[Word], float]] = {"first piece": lambda w: w.first, "whole word": lambda w: w.loss}
    return [
        Comparison(
            name,
            groups,
            measure,
            {
                held: effect(
                    ctx,
                    f"{name}, {measure}, {held}",
                    [value(word) for word in words],
                    [group(word) for word in words],
                    [stratum(word) for word in words],
                    [word.sentence for word in words],
                )
                for held, stratum in controls.items()
            },
        )
        for measure, value in measures.items()
    ]


def compare_pieces(ctx: Context, reading: Reading) -> Comparison:
    """First pieces of words against later ones."""
    chosen = [token for token in reading.tokens if token.word is not None and token.kind in (CONTENT, FUNCTION, LATER)]
    controls: dict[str, Callable[[int], object]] = {
        "nothing": lambda index: 0,
        "position": lambda index: position_bin(index % reading.window),
    }
    effects = {
        held: effect(
            ctx,
            f"later pieces, {held}",
            [token.loss for token in chosen],
            [token.kind == LATER for token in chosen],
            [stratum(token.index) for token in chosen],
            [token.word.sentence for token in chosen if token.word],
        )
        for held, stratum in controls.items()
    }
    return Comparison("pieces", ("first pieces", "later pieces"), "token", effects)


def effect(
    ctx: Context,
    salt: str,
    values: Sequence[float],
    group: Sequence[bool],
    strata: Sequence[object],
    clusters: Sequence[object],
) -> Effect | None:
    """A difference within strata as plain data; None where it cannot be taken."""
    found = stratified_difference(
        values, group, strata, clusters, generator=ctx.generator(salt), draws=ctx.numbers["draws"]
    )
    if found is None:
        return None
    return Effect(found.difference, found.interval, found.means, found.counts, found.verdict)
