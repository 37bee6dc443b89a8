"""Which of the book's sizes the profiles train, on which vocabulary, and how far: for README and report.

Everything is read from the recipes. The book's "2M, 10M, 30M" (21.22) are those of two, four and six layers only with
GPT-2's vocabulary, whose table they share; on characters they are a good deal smaller.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from minigpt.cost.counting import count_parameters
from reports.words import listed
from tasks.recipes.catalogue import LARGE, MEDIUM, SMALL, recipes
from tasks.recipes.profiles import PROFILES, Profile
from tasks.recipes.recipe import Recipe

BOOK = (SMALL, MEDIUM, LARGE)
GPT2, CHARACTERS, OWN = "bpe", "char", "bpe-2k"
VOCABULARY = {GPT2: 50_257, CHARACTERS: 65}  # tiny Shakespeare's characters; another text has some more or fewer
NAMES = {GPT2: "GPT-2's 50,257 byte pairs", CHARACTERS: "characters", OWN: "2,048 byte pairs of its own"}


@dataclass(frozen=True)
class Size:
    """One of the book's sizes on one vocabulary, as a profile trains it."""

    name: str  # "small"
    shape: str  # "2 layers × 128"
    vocabulary: str  # as readers call it
    parameters: int | None  # at the book's width and context; None where the vocabulary is the text's own
    recipe: Recipe | None  # of those with most seeds the longest training, resolved; None: not at this profile
    seeds: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens that a training reads, repetitions counted."""
        train = self.recipe.train if self.recipe else None
        return train.steps * train.batch_size * self.recipe.model.context if train and self.recipe else 0


def sizes(profile: Profile) -> Iterator[Size]:
    """The book's sizes on every vocabulary that this profile trains one of them on, and on GPT-2's in any case."""
    trained = [recipe for recipe in recipes().values() if _book(recipe) and profile.seeds(recipe)]
    used = dict.fromkeys(profile.resolve(recipe).tokenizer for recipe in trained)
    for tokenizer in dict.fromkeys((CHARACTERS, *used, GPT2)):
        for book in BOOK:
            same = [recipe for recipe in trained if _book(recipe) == book]
            found = [recipe for recipe in same if profile.resolve(recipe).tokenizer == tokenizer]
            longest = max(
                found,
                key=lambda recipe: (len(profile.seeds(recipe)), profile.resolve(recipe).train.steps),
                default=None,
            )
            vocabulary = VOCABULARY.get(tokenizer)
            yield Size(
                name=book.name,
                shape=f"{book.model.n_layer} layers × {book.model.d_model}",
                vocabulary=NAMES.get(tokenizer, tokenizer),
                parameters=count_parameters(replace(book.model, vocab_size=vocabulary)) if vocabulary else None,
                recipe=profile.resolve(longest) if longest else None,
                seeds=profile.seeds(longest) if longest else (),
            )


def _book(recipe: Recipe) -> Recipe | None:
    """The book's size of which a recipe has the shape."""
    return next((book for book in BOOK if recipe.model == book.model), None)


def where_trained(size: Size) -> tuple[str, ...]:
    """The names of the profiles that train this size on this vocabulary."""
    return tuple(
        name
        for name, profile in PROFILES.items()
        for other in sizes(profile)
        if (other.name, other.vocabulary) == (size.name, size.vocabulary) and other.recipe
    )


def of_run(size: Size, trained: Collection[tuple[str, int]]) -> str:
    """What a run has to say of a size, given the recipes and seeds that it has ``trained``."""
    if size.recipe is None:
        others = [f"`{name}`" for name in where_trained(size)]
        return f"not trained at this profile; trained at {listed(others)}" if others else "not trained at any profile"
    seeds = tuple(seed for seed in size.seeds if (size.recipe.name, seed) in trained)
    return f"trained: {extent(replace(size, seeds=seeds))}" if seeds else "not trained in this run yet"


def extent(size: Size) -> str:
    """How far a size is trained, in a few words: "2.2 M tokens, 3 seeds", "width 32: 15 k tokens, 1 seed", "–"."""
    if size.recipe is None:
        return "–"
    width = size.recipe.model.d_model
    narrow = "" if size.shape.endswith(f"× {width}") else f"width {width}: "
    return f"{narrow}{rounded(size.tokens)} tokens, {len(size.seeds)} seed{'' if len(size.seeds) == 1 else 's'}"


def rounded(count: float) -> str:
    """A large count in words of two digits: "15 k", "2.2 M", "130 M"."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.1f} {name}" if count < 10 * unit else f"{count / unit:.0f} {name}"
    return f"{count:.0f}"


def markdown() -> str:
    """The table of README.md: a row per size and vocabulary that a profile trains, a column per profile.

    Tokens are those of a run in fp32, and in brackets those of one in bf16 where they are others.
    """
    rows: dict[tuple[str, str], list[str]] = {}
    about: dict[tuple[str, str], Size] = {}
    for place, profile in enumerate(PROFILES.values()):
        for size, in_bf16 in zip(sizes(profile), sizes(profile.computed_in("bf16")), strict=True):
            key = (size.vocabulary, size.name)
            about.setdefault(key, size)
            tokens = f"{rounded(size.tokens)} tokens"
            both = f"{tokens} (bf16: {rounded(in_bf16.tokens)})" if in_bf16.tokens != size.tokens else tokens
            rows.setdefault(key, ["–"] * len(PROFILES))[place] = extent(size).replace(tokens, both)
    lines = [f"| size | vocabulary | parameters | {' | '.join(f'`{name}`' for name in PROFILES)} |"]
    lines.append("|---" * (3 + len(PROFILES)) + "|")
    order = {vocabulary: place for place, vocabulary in enumerate(dict.fromkeys(key[0] for key in rows))}
    trained = [key for key, row in rows.items() if set(row) != {"–"}]
    for key in sorted(trained, key=lambda key: order[key[0]] if key[0] != NAMES[GPT2] else len(order)):
        size = about[key]
        parameters = rounded(size.parameters) if size.parameters else "the text's own"
        lines.append(f"| {size.name}, {size.shape} | {size.vocabulary} | {parameters} | {' | '.join(rows[key])} |")
    return "\n".join(lines) + "\n"
