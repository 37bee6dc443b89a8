"""Exercise 21.10: a causal and a bidirectional model of one size, on classification, on gaps and on writing."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.analysis.probe import fit
from minigpt.cost import published
from minigpt.decoding import infill
from minigpt.decoding.sampling import generate
from minigpt.evaluation.evaluate import TOKENS_AT_ONCE, token_losses
from minigpt.evaluation.statistics import Comparison, compare, describe, format_mean_std, mean_std
from minigpt.model import GPT
from reports.types import Answer, Block, Cell, Check, Part, Prose, Sample, Table
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.recipes.catalogue import MEDIUM, SMALL, STUDY_MASKED, STUDY_ROPE

PAIRS = 3  # of neighbouring letters transposed in a corrupted window


def misspell(text: str, rng: random.Random) -> str:
    """Transpose three pairs of neighbouring, different letters."""
    letters = list(text)
    for _ in range(PAIRS):
        places = [
            i
            for i in range(len(letters) - 1)
            if letters[i].isalpha() and letters[i + 1].isalpha() and letters[i] != letters[i + 1]
        ]
        if places:
            i = rng.choice(places)
            letters[i], letters[i + 1] = letters[i + 1], letters[i]
    return "".join(letters)


def reorder(text: str, rng: random.Random) -> str:
    """Shuffle the words, the first and the last apart, which the window may have cut."""
    first, *inner, last = text.split(" ") if text.count(" ") > 1 else (text, "")
    rng.shuffle(inner)
    return " ".join([first, *inner, last])[: len(text)]


TASKS: dict[str, Callable[[str, random.Random], str]] = {"spelling": misspell, "word order": reorder}


@dataclass(frozen=True)
class Task:
    """Windows of text, half of them corrupted: as token ids (N, T), with label 1 where corrupted."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def make_task(context: Context, name: str, length: int) -> Task:
    """Windows of the training text for the probe, of the validation text for its test; each whole and corrupted."""
    tokenizer = context.model(STUDY_ROPE).tokenizer
    rng = random.Random(int(torch.randint(2**31, (), generator=context.generator(name))))
    parts: list[Tensor] = []
    for split, wanted in (("train", "train_windows"), ("validation", "test_windows")):
        text = context.text("train" if split == "train" else "validation")
        starts = list(range(0, len(text) - length + 1, length))
        whole = [text[i : i + length] for i in rng.sample(starts, min(len(starts), context.numbers[wanted]))]
        both = [*whole, *(TASKS[name](window, rng) for window in whole)]
        parts.append(torch.tensor([tokenizer.encode(window) for window in both], device=context.device))
        parts.append((torch.arange(len(both), device=context.device) >= len(whole)).long())
    return Task(*parts)


Features = dict[str, tuple[Tensor, Tensor]]  # of the training and the test windows, (N, F) each


def probed(task: Task, train: Tensor, test: Tensor) -> float:
    """Test accuracy of a linear probe on features (N, F) of the windows."""
    return fit(train, task.train_labels).accuracy(test, task.test_labels)


def read(task: Task, model: GPT, *, both_ways: bool) -> Features:
    """What a model says of the windows: see ``reading``."""
    train, test = (reading(model, tokens, both_ways=both_ways) for tokens in (task.train, task.test))
    return {name: (train[name], test[name]) for name in train}


@torch.inference_mode()
def reading(model: GPT, tokens: Tensor, *, both_ways: bool) -> dict[str, Tensor]:
    """Features of windows (N, T), all from one pass.

    ``mean`` and ``last`` are the final hidden states averaged over the window, and of its last position, as GPT-1
    classifies, (N, C); ``own loss`` is the causal model's mean loss on the window, (N, 1).
    """
    T = tokens.shape[1]
    mask = infill.everything(T, tokens.device) if both_ways else None
    found: dict[str, list[Tensor]] = {}
    for chunk in tokens.split(max(1, TOKENS_AT_ONCE.get(tokens.device.type, 2**15) // T)):
        h = model.hidden(chunk, mask=mask).float()  # (n, T, C)
        features = {"mean": h.mean(dim=1), "last": h[:, -1]}
        if not both_ways:
            logs = model.unembedding(h[:, :-1]).log_softmax(dim=-1)
            features["own loss"] = -logs.gather(-1, chunk[:, 1:, None])[..., 0].mean(dim=1, keepdim=True)
        for name, values in features.items():
            found.setdefault(name, []).append(values)
    return {name: torch.cat(values) for name, values in found.items()}


def read_twice(task: Task, model: GPT) -> tuple[Tensor, Tensor]:
    """Features of a causal model that has the window in front of it a second time: the mean over the second reading."""
    T = task.train.shape[1]

    @torch.inference_mode()
    def second(tokens: Tensor) -> Tensor:
        doubled = torch.cat([tokens, tokens], dim=1)
        chunks = doubled.split(max(1, TOKENS_AT_ONCE.get(tokens.device.type, 2**15) // (2 * T)))
        return torch.cat([model.hidden(chunk).float()[:, T:].mean(dim=1) for chunk in chunks])

    return second(task.train), second(task.test)


def letters(task: Task, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Features: how often each token occurs. Both halves of a task have the same."""
    one_hot = torch.nn.functional.one_hot
    train, test = (one_hot(tokens, vocab_size).double().mean(dim=1) for tokens in (task.train, task.test))
    return train, test


def untrained(trained: TrainedModel) -> GPT:
    """The same architecture with new random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trained.recipe.seed + 1_000)
        return GPT(trained.model.config).to(trained.model.unembedding.weight.device).eval()


class Evidence:
    """Everything that is measured, for all seeds."""

    def __init__(self, context: Context) -> None:
        self.causal = [context.model(STUDY_ROPE, seed) for seed in context.seeds(STUDY_ROPE)]
        self.masked = [context.model(STUDY_MASKED, seed) for seed in context.seeds(STUDY_MASKED)]
        self.larger = {recipe.name: context.model(recipe) for recipe in (SMALL, MEDIUM)}
        self.length = min(m.model.config.context for m in (*self.causal, *self.larger.values()))
        self.tokens = context.tokens(STUDY_ROPE)
        self.accuracy = self._classify(context)
        context.progress(0.5, "filling gaps")
        self.gaps = self._fill(context.numbers["gap_windows"])
        context.progress(0.8, "predicting the next character")
        self.next = self._predict(context.numbers["next_windows"])

    def _classify(self, context: Context) -> dict[tuple[str, str], list[float]]:
        """(task, features) → test accuracy, one per seed."""
        result: dict[tuple[str, str], list[float]] = {}
        for i, name in enumerate(TASKS):
            context.progress(0.25 * i, f"probes: {name}")
            task, half = (make_task(context, name, length) for length in (self.length, self.length // 2))
            found = {"letter counts": [probed(task, *letters(task, self.causal[0].model.config.vocab_size))]}
            for label, models in self._readers().items():
                for model, both in models:
                    for kind, pair in read(task, model, both_ways=both).items():
                        found.setdefault(f"{label}, {kind}", []).append(probed(task, *pair))
            for m in self.causal:
                once, twice = read(half, m.model, both_ways=False)["mean"], read_twice(half, m.model)
                found.setdefault("half, read once", []).append(probed(half, *once))
                found.setdefault("half, read twice", []).append(probed(half, *twice))
            found["half, masked"] = [probed(half, *read(half, m.model, both_ways=True)["mean"]) for m in self.masked]
            result |= {(name, features): values for features, values in found.items()}
        return result

    def _readers(self) -> dict[str, list[tuple[GPT, bool]]]:
        """Label → models, and whether they read both ways."""
        return {
            "untrained": [(untrained(m), False) for m in self.causal],
            "causal": [(m.model, False) for m in self.causal],
            "masked": [(m.model, True) for m in self.masked],
            **{f"causal {label}": [(m.model, False)] for label, m in self.larger.items()},
        }

    def windows(self, count: int) -> Tensor:
        """Windows of the validation text, evenly spread, (count, T)."""
        available = len(self.tokens) // self.length
        rows = self.tokens[: available * self.length].view(available, self.length)
        return rows[torch.linspace(0, available - 1, min(count, available)).long()]

    def _fill(self, count: int) -> dict[str, list[tuple[float, float]]]:
        """Way of filling the middle of a window → (accuracy, nats), one per seed."""
        tokens, middle = self.windows(count), self.length // 2
        ways = (
            ("masked, both sides", infill.fill_both_ways, self.masked),
            ("causal, left side only", infill.fill_from_the_left, self.causal),
            ("causal, every candidate scored", infill.fill_by_scoring, self.causal),
        )
        truth = tokens[:, middle]
        result: dict[str, list[tuple[float, float]]] = {}
        for name, fill, models in ways:
            for trained in models:
                logs = fill(trained.model, tokens, middle).double()
                right = (logs.argmax(dim=-1) == truth).double().mean().item()
                known = truth != infill.HIDDEN  # a character the training text does not have
                loss = -logs[known].gather(-1, truth[known, None]).mean().item()
                result.setdefault(name, []).append((right, loss))
        return result

    def _predict(self, count: int) -> dict[str, list[float]]:
        """Mean loss of the next character of the same texts, one per seed, in nats."""
        tokens, first = self.windows(count), self.length // 4
        truth = tokens[:, first:]
        known = truth != infill.HIDDEN
        result: dict[str, list[float]] = {"causal": [], "masked": []}
        for one, two in zip(self.causal, self.masked, strict=True):
            pairs = (("causal", one.model, next_one_way), ("masked", two.model, infill.next_both_ways))
            for name, model, ahead in pairs:
                logs = torch.stack([ahead(model, tokens[:, :i]) for i in range(first, self.length)], dim=1)
                losses = -logs.double().gather(-1, truth[..., None])[..., 0]
                result[name].append(losses[known].mean().item())
        return result


def next_one_way(model: GPT, tokens: Tensor) -> Tensor:
    """ln P(next token | tokens) of a causal model, (B, T) → (B, V), without the token that stands for hidden."""
    padded = torch.cat([tokens, tokens[:, :1]], dim=1)
    return infill.fill_from_the_left(model, padded, tokens.shape[1])


def answer(context: Context) -> Answer:
    """All four parts."""
    e = Evidence(context)
    writing = compare(e.next["causal"], e.next["masked"])
    probes = {name: compare(e.accuracy[name, "causal, mean"], e.accuracy[name, "masked, mean"]) for name in TASKS}
    metrics: dict[str, float | int] = {
        "next_character_causal_nats": mean_std(e.next["causal"])[0],
        "next_character_masked_nats": mean_std(e.next["masked"])[0],
        "next_character_masked_minus_causal_nats": writing.difference,
        "parameters_causal": parameters(e.causal[0]),
        "parameters_masked": parameters(e.masked[0]),
        **{f"parameters_causal_{label}": parameters(m) for label, m in e.larger.items()},
        **{slug(f"superglue {name} percent"): score for name, score in published.SUPERGLUE.items()},
        "gpt_3_175b_parameters_over_bert_large": gpt3_over_bert(),
    }
    for (task, features), values in e.accuracy.items():
        metrics[slug(f"accuracy {task} {features}")] = mean_std(values)[0]
    for way, pairs in e.gaps.items():
        metrics[slug(f"gap accuracy {way}")] = mean_std([right for right, _ in pairs])[0]
        metrics[slug(f"gap {way} nats")] = mean_std([nats for _, nats in pairs])[0]
    best = min(e.gaps, key=lambda way: mean_std([nats for _, nats in e.gaps[way]])[0])
    return Answer(
        summary=describe(writing, "the masked model", "the causal one", quantity="next-character loss")
        + f" A gap is filled best by: {best}.",
        parts=(
            Part("a", part_a(context, e, writing), "text generation"),
            Part("b", part_b(e, probes), "text classification"),
            Part("c", part_c(e), "bidirectional tasks with an autoregressive model"),
            Part("d", part_d(e), "size against architecture"),
        ),
        checks=checks(context, e, writing),
        metrics=metrics,
    )


def parameters(trained: TrainedModel) -> int:
    """Parameters of a model."""
    return sum(p.numel() for p in trained.model.parameters())


def gpt3_over_bert() -> float:
    """How many times BERT-Large's parameters GPT-3 175B has, as published."""
    return published.GPT3[-1].parameters_millions * 1e6 / published.BERT_LARGE_PARAMETERS


def slug(text: str) -> str:
    """A metric's name."""
    return "_".join(text.lower().replace(",", "").replace("-", "_").split())


def part_a(context: Context, e: Evidence, writing: Comparison) -> tuple[Block, ...]:
    """Writing."""
    verdict = {
        "higher": "The causal model is better suited",
        "lower": "By this measure the masked model is better here",
        "noise": "By this measure the two do not differ beyond the noise",
        "one seed": "With one seed that is a hint only",
    }[writing.verdict]
    recipe, rate = e.causal[0].recipe, masking_rate(e)
    return (
        Prose(
            f"Two models of the same architecture ({parameters(e.causal[0]):,} and {parameters(e.masked[0]):,} "
            f"parameters, rotary positions), on the same text for the same {recipe.train.steps} steps: one causal, one "
            f"with full attention trained as BERT is ({rate:.0%} of the tokens are predicted, most of them hidden, "
            "some changed, some left; Devlin et al., 2019, section 3.1)."
        ),
        Prose(
            "The autoregressive model is made for generation: the chain rule turns its conditionals into the "
            "probability of a text, every position of the training text is an exercise in writing, and with a "
            "key/value cache each new token costs one step. A masked model never sees a text that simply ends. It "
            f"can be made to write all the same, by appending a hidden token and predicting it, and so both can be "
            f"measured on one scale, the loss of the next character of the same held-out texts. "
            f"{describe(writing, 'the masked model', 'the causal one', quantity='loss')} {verdict}; and for each "
            "character the masked model reads the whole text again."
        ),
        Table(
            columns=("model", "next character (nats)", "passes to score T characters", "to write one more"),
            rows=(
                ("causal", format_mean_std(e.next["causal"]), "1", "1 token, with a cache"),
                ("masked", format_mean_std(e.next["masked"]), "T", "all tokens again"),
            ),
            caption="Next-character loss from a quarter of the window on, "
            f"windows of {e.length} characters, mean ± std",
            name="generation",
        ),
        *written(context, e),
    )


def masking_rate(e: Evidence) -> float:
    """Share of the tokens that the masked model predicted in training."""
    return float(dict(e.masked[0].recipe.train.objective_args).get("rate", infill.RATE))


def written(context: Context, e: Evidence) -> list[Sample]:
    """The same prompts continued in three ways."""
    prompts, n_new = e.windows(context.numbers["samples"])[:, : e.length // 4], e.length - e.length // 4
    causal, masked = e.causal[0], e.masked[0]
    ways: tuple[tuple[str, Callable[[torch.Generator], Tensor]], ...] = (
        ("Causal", lambda g: generate(causal.model, prompts, n_new, generator=g)),
        ("Masked, left to right", lambda g: infill.write_left_to_right(masked.model, prompts, n_new, g)),
        ("Masked, surest character first", lambda g: infill.write_in_any_order(masked.model, prompts, n_new, g)),
    )
    samples = []
    for name, write in ways:
        rows = write(context.generator("writing")).tolist()
        for row in rows:
            prompt, text = (causal.tokenizer.decode(ids) for ids in (row[: prompts.shape[1]], row[prompts.shape[1] :]))
            samples.append(Sample(name, prompt, text, "temperature 1"))
    return samples


def part_b(e: Evidence, probes: dict[str, Comparison]) -> tuple[Block, ...]:
    """Classification."""
    said = " ".join(
        f"*{name.capitalize()}:* {describe(c, 'the masked model', 'the causal one', quantity='accuracy', unit='')}"
        for name, c in probes.items()
    )
    wins = {name: c.verdict for name, c in probes.items()}
    conclusion = (
        "One seed cannot decide which is the better reader."
        if "one seed" in wins.values()
        else "On both tasks the bidirectional model is the better reader, as the textbook expects."
        if all(v == "higher" for v in wins.values())
        else "On neither task is it the better reader here."
        if not any(v == "higher" for v in wins.values())
        else "So which reader is better depends on the task: it is the masked model for "
        f"{' and '.join(name for name, v in wins.items() if v == 'higher')}."
    )
    order = ("letter counts", "untrained, mean", "causal, mean", "causal, last", "causal, own loss", "masked, mean")
    rows = [(features, *(accuracy_cell(e, name, features) for name in TASKS)) for features in (*order, "masked, last")]
    own = {name: mean_of(e, name, "causal, own loss") for name in TASKS}
    return (
        Prose(
            "A classifier has the whole text before it decides, so nothing is gained by hiding the right side from "
            "the left: a bidirectional model can let every position look both ways, and each of its states knows the "
            "whole text, whereas in a causal model only the last does (Devlin et al., 2019, section 5.1, found BERT "
            "worse with left context only). For understanding at equal size and training the expectation is "
            "therefore the bidirectional model."
        ),
        Prose(
            f"**Measured.** Is a window of {e.length} characters as it was, or has it been corrupted: *spelling*, "
            f"{PAIRS} pairs "
            "of neighbouring letters transposed; *word order*, its words shuffled? Both halves hold the same "
            "letters, so counting them cannot help. A linear probe (logistic regression) reads the frozen states, "
            f"averaged over the window; it is fitted on training text and tested on validation text, chance is 0.5. "
            f"{said} {conclusion} The masked model has "
            f"learned from {masking_rate(e):.0%} of the tokens in the same steps, the causal one from all (Clark et "
            "al., 2020, name this as the cost of masking), which works against it. A causal model has one more thing "
            "to offer, the probability of the text: its own mean loss on the window, as a single feature, gives "
            f"{' and '.join(f'{accuracy:.3f} on {name}' for name, accuracy in own.items())}."
        ),
        Table(
            columns=("features", *(f"accuracy: {name}" for name in TASKS)),
            rows=tuple(rows),
            caption="Accuracy of linear probes on validation text, mean ± standard deviation over seeds. “mean” and "
            "“last” are the states averaged over the window and the last one, “own loss” is one number",
            name="classification",
        ),
    )


def accuracy_cell(e: Evidence, task: str, features: str) -> str:
    """Mean and deviation over seeds; letter counts depend on none."""
    values = e.accuracy[task, features]
    return f"{values[0]:.3f}" if features == "letter counts" else format_mean_std(values)


def part_c(e: Evidence) -> tuple[Block, ...]:
    """What a causal model can do about its blindness to the right."""
    nats = {way: [loss for _, loss in pairs] for way, pairs in e.gaps.items()}
    both, left, scored = nats.values()
    gap = describe(
        compare(both, scored), "the causal model that scores candidates", "the masked model", quantity="loss"
    )
    gained = mean_std(left)[0] - mean_std(scored)[0]
    gains = f"gains {gained:.3f}" if gained >= 0 else f"loses {-gained:.3f}"
    twice = {name: compare(e.accuracy[name, "half, read once"], e.accuracy[name, "half, read twice"]) for name in TASKS}
    said = " ".join(
        f"*{name.capitalize()}:* {describe(c, 'two readings', 'one', quantity='accuracy', unit='')}"
        for name, c in twice.items()
    )
    passes = {"masked, both sides": "1", "causal, left side only": "1"}
    V = e.causal[0].model.config.vocab_size
    return (
        Prose(
            "Yes, at a price.\n\n"
            "1. **Scoring.** It has a probability for every complete text, so Bayes' rule gives it what a masked "
            r"model predicts: $P(c \mid \text{left}, \text{right}) \propto P(c \mid \text{left}) \, P(\text{right} "
            r"\mid \text{left}, c)$, one "
            "pass per candidate.\n"
            "2. **Order.** Put what must be known first in front: the question after the text, the text before its "
            "summary; fill-in-the-middle training moves the gap to the end (Bavarian et al., 2022).\n"
            "3. **Reading twice.** A second copy of the text can look back at all of the first (Springer et al., "
            "2024).\n4. **Asking.** Classification becomes continuation: after “Sentiment:”, compare the candidates "
            "(Brown et al., 2020).\n"
            "5. **Training on.** Remove the mask and train a little more with hidden tokens, or use a prefix model "
            "(exercise 21.30)."
        ),
        Prose(
            f"**Measured: gaps.** The character in the middle of a window is missing. {gap} Against its own guess "
            f"from the left alone, scoring {gains} nats, at {V} passes a gap instead of one."
        ),
        Table(
            columns=("way", "right characters", "loss (nats)", "passes per gap"),
            rows=tuple(
                (
                    way,
                    format_mean_std([right for right, _ in pairs]),
                    format_mean_std(nats[way]),
                    passes.get(way, str(V)),
                )
                for way, pairs in e.gaps.items()
            ),
            caption="A missing character in the middle of held-out windows, mean ± standard deviation over seeds",
            name="gaps",
        ),
        Prose(
            f"**Measured: reading twice.** The tasks of part (b) with windows of {e.length // 2} characters, so that "
            f"two fit into the context, averaged over the second reading. {said} The models were never trained on "
            "repeated text, which in large corpora is common."
        ),
        Table(
            columns=("reading", *(f"accuracy: {name}" for name in TASKS)),
            rows=tuple(
                (features.removeprefix("half, "), *(format_mean_std(e.accuracy[name, features]) for name in TASKS))
                for features in ("half, read once", "half, read twice", "half, masked")
            ),
            caption=f"Linear probes on windows of {e.length // 2} characters, mean ± standard deviation over seeds",
            name="twice",
        ),
    )


def part_d(e: Evidence) -> tuple[Block, ...]:
    """Size against architecture: published numbers, and a small measurement."""
    few, bert = published.SUPERGLUE["GPT-3 175B, few-shot"], published.SUPERGLUE["fine-tuned BERT-Large"]
    best = published.SUPERGLUE["fine-tuned state of the art"]
    masked, causal = ([mean_std(e.accuracy[t, f"{kind}, mean"])[0] for t in TASKS] for kind in ("masked", "causal"))
    larger: dict[str, list[float]] = {
        size(m): [e.accuracy[t, f"causal {label}, mean"][0] for t in TASKS] for label, m in e.larger.items()
    }
    rows: list[tuple[Cell, ...]] = [
        (f"masked, {size(e.masked[0])}", *masked),
        (f"causal, {size(e.causal[0])}", *causal),
    ]
    rows += [(f"causal, {label}", *accuracies) for label, accuracies in larger.items()]
    recipes = [e.causal[0].recipe, *(m.recipe for m in e.larger.values())]
    steps = ", ".join(f"{recipe.name} {recipe.train.steps}" for recipe in recipes)
    sentence = " ".join(
        catching_up(t, masked[i], causal[i], [accuracies[i] for accuracies in larger.values()])
        for i, t in enumerate(TASKS)
    )
    return (
        Prose(
            f"The paper's own numbers: on SuperGLUE GPT-3 175B reaches {few:g} with 32 examples in its context, "
            f"fine-tuned BERT-Large {bert:g}, the best fine-tuned model of the time {best:g} (Brown et al., 2020, "
            f"table 3.8). GPT-3 has {gpt3_over_bert():,.0f} times the parameters of BERT-Large. So size can make up "
            "for an architecture that is less suited to the task, and brings something the other lacks, tasks set by a "
            "prompt and not by training; but it is an expensive substitute, and an incomplete one. On "
            f"Word-in-Context, where two uses of a word must be compared, it has {published.WIC_FEW_SHOT:g} % where "
            f"chance is {published.WIC_CHANCE:g} %; the authors suspect the missing "
            "bidirectionality (section 5). The comparison is not clean either: few-shot against fine-tuned, and "
            "other data."
        ),
        Prose(
            "What it suggests: architecture sets how efficiently size is used for a kind of task, not what is "
            "possible; with enough size a model whose objective uses every token and serves every task can reach "
            "models that were made for one. At equal cost the choice may still matter. **In miniature**, the probes "
            f"of part (b) on larger causal models: {sentence} (One seed of each larger model, learned positions, "
            f"steps: {steps}. An illustration, not a law.)"
        ),
        Table(
            columns=("model, parameters", *(f"accuracy: {name}" for name in TASKS)),
            rows=tuple(rows),
            caption="Linear probes on averaged states of causal models of several sizes, and of the masked model",
            name="sizes",
        ),
    )


def catching_up(task: str, masked: float, causal: float, larger: list[float]) -> str:
    """Whether size brings causal models level with the masked one on a task; accuracies, the larger ones by size."""
    best = max(larger)
    if causal >= masked:
        return (
            f"On {task} there is nothing to catch up, the causal model of the same size has {causal:.3f} against "
            f"{masked:.3f}; the larger ones reach {best:.3f}."
        )
    reached = "reaches" if best >= masked else "does not reach"
    return f"On {task} the best larger causal model {reached} the masked one ({best:.3f} against {masked:.3f})."


def size(trained: TrainedModel) -> str:
    """Name and parameters of a model."""
    return f"{trained.recipe.name}, {parameters(trained):,}"


@torch.inference_mode()
def leaks(e: Evidence) -> list[int]:
    """At how many earlier positions the output changes when the last token does: causal, masked."""
    tokens = e.windows(1)
    other = tokens.clone()
    other[0, -1] = tokens[0, -1] % (e.causal[0].model.config.vocab_size - 1) + 1
    counts = []
    for model, mask in (
        (e.causal[0].model, None),
        (e.masked[0].model, infill.everything(tokens.shape[1], tokens.device)),
    ):
        before, after = (model.hidden(x, mask=mask)[0, :-1] for x in (tokens, other))
        counts.append(int((before != after).any(dim=-1).sum()))
    return counts


def scoring_error(e: Evidence) -> float:
    """Bayes' rule by whole texts: largest difference between scored candidates and sums of token losses, in nats."""
    tokens, middle, model = e.windows(1), e.length // 2, e.causal[0].model
    logs = infill.fill_by_scoring(model, tokens, middle)[0, 1:]
    whole = []
    for candidate in range(1, model.config.vocab_size):
        text = tokens[0].clone()
        text[middle] = candidate
        whole.append(-token_losses(model, text).double().sum())
    return (torch.stack(whole).log_softmax(dim=0) - logs.double()).abs().max().item()


def checks(context: Context, e: Evidence, writing: Comparison) -> tuple[Check, ...]:
    """What the models can see, equal sizes, equal letters, Bayes' rule; and the textbook's expectations."""
    causal, both = leaks(e)
    result = [
        Check.equal("causal model: earlier states that change with the last token", causal, 0),
        Check.equal("masked model: earlier states that change with the last token", both, e.length - 1),
        Check.equal("parameters: masked minus causal", parameters(e.masked[0]) - parameters(e.causal[0]), 0),
        Check.at_most("a gap by scoring against whole texts scored one by one (nats)", scoring_error(e), 1e-3),
    ]
    for name in TASKS:
        task = make_task(context, name, e.length)
        half = len(task.test) // 2
        _, counts = letters(task, e.causal[0].model.config.vocab_size)
        moved = (counts[:half] - counts[half:]).abs().max().item()
        result.append(Check.at_most(f"{name}: corruption changes no letter count (largest difference)", moved, 1e-12))
        better = mean_of(e, name, "masked, mean") - mean_of(e, name, "causal, mean")
        claim = f"{name}: probe accuracy of the masked model minus that of the causal one"
        result.append(Check.at_least(claim, better, 0.0, "empirical"))
    gaps = [mean_std([nats for _, nats in pairs])[0] for pairs in e.gaps.values()]
    return (
        *result,
        Check.at_least("next character: masked loss minus causal loss (nats)", writing.difference, 0.0, "empirical"),
        Check.at_least("gap: loss from the left minus loss by scoring (nats)", gaps[1] - gaps[2], 0.0, "empirical"),
    )


def mean_of(e: Evidence, task: str, features: str) -> float:
    """Mean accuracy over seeds."""
    return mean_std(e.accuracy[task, features])[0]


EXERCISE = Exercise(
    id="21.10",
    title="Autoregressive vs. Bidirectional",
    answer=answer,
    recipes=(STUDY_ROPE, STUDY_MASKED, SMALL, MEDIUM),
    numbers={
        "smoke": {"train_windows": 200, "test_windows": 60, "gap_windows": 16, "next_windows": 16, "samples": 1},
        "laptop": {"train_windows": 600, "test_windows": 299, "gap_windows": 96, "next_windows": 96, "samples": 2},
        "gpu": {
            "train_windows": 8_000,
            "test_windows": 3_000,
            "gap_windows": 1_000,
            "next_windows": 1_000,
            "samples": 3,
        },
    },
    seconds={"smoke": 4, "laptop": 90, "gpu": 60},
)
