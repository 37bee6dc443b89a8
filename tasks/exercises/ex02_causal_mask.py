"""Exercise 21.2: the causal mask of eight positions, and what happens when it is forgotten in training."""

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.decoding.sampling import generate
from minigpt.evaluation.entropy import unigram_loss
from minigpt.evaluation.statistics import format_mean_std, mean_std
from minigpt.masks import causal_mask
from minigpt.model import attention_weights
from reports.types import Answer, Block, Check, Code, Figure, Heatmap, Part, Prose, Sample, Series, Table
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.recipes.catalogue import STUDY, STUDY_BIDIRECTIONAL

LENGTH, POSITION = 8, 5
Losses = dict[str, list[Tensor]]  # one tensor (T,) per seed: the mean loss at each position of the window


def drawn(mask: Tensor) -> str:
    """The mask as the question wants it: 0 for attend, X for masked; rows are queries, both counted from 0."""
    header = "query\\key  " + "  ".join(map(str, range(mask.shape[1])))
    rows = [f"{i:>9}  " + "  ".join("0" if seen else "X" for seen in row) for i, row in enumerate(mask.tolist())]
    return "\n".join([header, *rows])


def random_weights(context: Context, heads: int) -> Tensor:
    """Attention weights of random queries and keys under the causal mask, (H, 8, 8)."""
    q, k = torch.randn(2, 1, heads, LENGTH, 16, generator=context.generator("weights")).unbind()
    return attention_weights(q, k, causal_mask(LENGTH))[0]


@torch.inference_mode()
def trained_weights(model: TrainedModel, tokens: Tensor) -> Tensor:
    """Attention weights of every layer and head of a trained model on eight tokens, (L · H, 8, 8)."""
    maps: list[Tensor] = []
    model.model(tokens[None, :LENGTH], maps=maps)
    return torch.cat(maps, dim=1)[0].cpu()


@torch.inference_mode()
def losses_by_position(trained: TrainedModel, tokens: Tensor, *, full: bool) -> Tensor:
    """Mean loss at each position of the windows of a text, with or without the causal mask, (T,) in nats."""
    model, T = trained.model, trained.model.config.context
    windows = (len(tokens) - 1) // T
    inputs, targets = tokens[: windows * T].view(-1, T), tokens[1 : windows * T + 1].view(-1, T)
    mask = torch.ones(T, T, dtype=torch.bool, device=tokens.device) if full else None
    losses = [
        F.cross_entropy(model(x, mask=mask).flatten(0, 1), y.flatten(), reduction="none").view(-1, T)
        for x, y in zip(inputs.split(64), targets.split(64), strict=True)
    ]
    return torch.cat(losses).double().mean(dim=0).cpu()


def answer(context: Context) -> Answer:
    """All four parts."""
    causal = [context.model(STUDY, seed) for seed in context.seeds(STUDY)]
    leaky = [context.model(STUDY_BIDIRECTIONAL, seed) for seed in context.seeds(STUDY_BIDIRECTIONAL)]
    tokens = context.tokens(STUDY)
    weights = {
        "random": random_weights(context, causal[0].model.config.n_head),
        "trained": trained_weights(causal[0], tokens),
    }
    losses: Losses = {
        "trained causal, read causal": [losses_by_position(m, tokens, full=False) for m in causal],
        "trained full, read full": [losses_by_position(m, tokens, full=True) for m in leaky],
        "trained full, read causal": [losses_by_position(m, tokens, full=False) for m in leaky],
    }
    vocabulary = causal[0].model.config.vocab_size
    unigram = unigram_loss(context.tokens(STUDY, "train"), tokens, vocabulary)
    mean = {name: mean_std([loss.mean().item() for loss in values])[0] for name, values in losses.items()}
    cheating = torch.stack(losses["trained full, read full"]).mean(dim=0)  # (T,)
    metrics: dict[str, float | int] = {
        "attended_keys_position_5_from_1": POSITION,
        "attended_keys_position_5_from_0": POSITION + 1,
        "attended_pairs": LENGTH * (LENGTH + 1) // 2,
        **{
            f"{which}_row_sum_{name}_weights": found.item()
            for name, w in weights.items()
            for which, found in zip(("smallest", "largest"), w.double().sum(dim=-1).aminmax(), strict=True)
        },
        "largest_row_sum_error": largest_row_error(torch.cat(list(weights.values()))),
        "final_training_loss_causal_nats": mean_std([m.history["train_loss"][-1] for m in causal])[0],
        "final_training_loss_full_attention_nats": mean_std([m.history["train_loss"][-1] for m in leaky])[0],
        "validation_loss_trained_causal_read_causal_nats": mean["trained causal, read causal"],
        "validation_loss_trained_full_read_full_nats": mean["trained full, read full"],
        "validation_loss_trained_full_read_full_last_position_nats": cheating[-1].item(),
        "validation_loss_trained_full_read_full_other_positions_nats": cheating[:-1].mean().item(),
        "validation_loss_trained_full_read_causal_nats": mean["trained full, read causal"],
        "unigram_loss_nats": unigram,
    }
    return Answer(
        summary=f"Position {POSITION} attends to {POSITION} keys counted from 1, {POSITION + 1} from 0; rows sum to 1. "
        f"Trained without the mask, the model reaches {metrics['final_training_loss_full_attention_nats']:.3f} nats in "
        f"training and {mean['trained full, read causal']:.2f} in causal use.",
        parts=(
            Part("a", part_a(), "the mask"),
            Part("b", part_b(weights), f"non-zero weights of position {POSITION}"),
            Part("c", part_c(weights), "sums of rows"),
            Part("d", part_d(context, causal, leaky, losses, unigram), "full attention in training, causal in use"),
        ),
        checks=checks(weights, losses, leaky, unigram),
        metrics=metrics,
    )


def largest_row_error(weights: Tensor) -> float:
    """How far any row's sum is from 1."""
    return (weights.double().sum(dim=-1) - 1).abs().max().item()


def part_a() -> tuple[Block, ...]:
    """The drawing."""
    mask = causal_mask(LENGTH)
    return (
        Prose(
            r"Query $i$ (row) may attend to key $j$ (column) if $j \le i$: a lower triangle of "
            f"${LENGTH} \\cdot {LENGTH + 1} / 2 = {int(mask.sum())}$ pairs out of {mask.numel()}. Masked scores are "
            r"set to $-\infty$ before the softmax."
        ),
        Code(drawn(mask), f"Causal mask of length {LENGTH}: 0 attends, X is masked"),
    )


def part_b(weights: dict[str, Tensor]) -> tuple[Block, ...]:
    """Counted on weights, in both indexings."""
    rows = []
    for i in range(LENGTH):
        counts = [int((w[:, i] > 0).sum(dim=-1).double().mean()) for w in weights.values()]
        rows.append((i, i + 1, i + 1, *counts))
    return (
        Prose(
            "The softmax of a finite score is positive, that of $-\\infty$ is 0, so the non-zero weights are those "
            f"that the mask allows. Counted from 1, position {POSITION} sees positions 1 to {POSITION}: {POSITION} "
            f"weights. Counted from 0, as in the drawing, it sees 0 to {POSITION}: {POSITION + 1}. The general rule "
            "is $i$ from 1 and $i + 1$ from 0, and the table counts it in real attention weights."
        ),
        Table(
            columns=("row, from 0", "row, from 1", "allowed", "non-zero, random weights", "non-zero, trained model"),
            rows=tuple(rows),
            caption="Non-zero attention weights per row (mean over heads)",
            name="counts",
        ),
    )


def part_c(weights: dict[str, Tensor]) -> tuple[Block, ...]:
    """Row sums, measured."""
    example = weights["trained"][0]
    mask = causal_mask(LENGTH).tolist()
    rows = []
    for name, w in weights.items():
        sums = w.double().sum(dim=-1)
        columns = w.double().sum(dim=-2)
        rows.append(
            (name, w.shape[0], sums.min().item(), sums.max().item(), columns.min().item(), columns.max().item())
        )
    return (
        Prose(
            r"Every row sums to 1, because softmax divides by the sum of its own numerators:"
            r"$$\sum_j A_{ij} = \sum_{j \le i} \frac{e^{s_{ij}}}{\sum_{k \le i} e^{s_{ik}}} = 1.$$"
            "Masking before the softmax keeps the masked terms out of numerator and denominator alike, so each row "
            "is a distribution over the visible keys; the first has one key and weight 1. Columns are under no such "
            "law: how much attention a key receives in all is up to the model, and early keys have more queries to "
            "be seen by."
        ),
        Table(
            columns=(
                "weights",
                "heads",
                "smallest row sum",
                "largest row sum",
                "smallest column sum",
                "largest column sum",
            ),
            rows=tuple(rows),
            caption=f"Sums over rows and columns, {LENGTH} positions",
            name="row_sums",
        ),
        Heatmap(
            values=tuple(
                tuple(value if seen else None for value, seen in zip(row, shown, strict=True))
                for row, shown in zip(example.tolist(), mask, strict=True)
            ),
            x_label="key",
            y_label="query",
            caption="Attention weights of the trained model, layer 0, head 0",
            x_ticks=tuple(map(str, range(LENGTH))),
            y_ticks=tuple(map(str, range(LENGTH))),
            annotate=True,
        ),
    )


def part_d(
    context: Context, causal: list[TrainedModel], leaky: list[TrainedModel], losses: Losses, unigram: float
) -> tuple[Block, ...]:
    """The mistake, trained."""
    mean = {name: mean_std([loss.mean().item() for loss in values])[0] for name, values in losses.items()}
    training = mean_std([m.history["train_loss"][-1] for m in leaky])[0]
    broken, cheating = mean["trained full, read causal"], mean["trained full, read full"]
    learnt = cheating < mean["trained causal, read causal"]
    verdict = (
        f"worse than knowing nothing but letter frequencies ({unigram:.2f} nats)"
        if broken > unigram
        else f"still better than letter frequencies ({unigram:.2f} nats)"
        if broken > mean["trained causal, read causal"]
        else "not worse than the model trained causally, so the mistake did no harm at this scale"
    )
    last = torch.stack(losses["trained full, read full"])[:, -1].mean().item()
    rest = torch.stack(losses["trained full, read full"])[:, :-1].mean().item()
    return (
        Prose(
            "The target of position $i$ is token $i + 1$, and under full attention position $i$ can look at it: "
            "copying is the way to a low loss, and only at the last position of a window is prediction asked for. In "
            "causal generation there is nothing to copy, and hardly any loss has told the model what to do then."
        ),
        Prose(
            f"Trained that way, the same architecture on the same tokens (characters) ends at a training loss of "
            f"{training:.3f} nats per token in its last step, against "
            f"{mean_std([m.history['train_loss'][-1] for m in causal])[0]:.3f} with the mask. "
            f"On held-out text it has {cheating:.3f} nats as long as it may look ahead"
            + (
                f" ({rest:.3f} on average before the last position, {last:.2f} at it: that target is outside the "
                "window)"
                if learnt
                else ""
            )
            + f". Read causally it has {broken:.2f} nats, {verdict}; the model trained with the mask has "
            f"{mean['trained causal, read causal']:.2f}."
        ),
        Table(
            columns=("mask in training", "mask in use", "training loss (nats/token)", "validation loss (nats/token)"),
            rows=tuple(
                (
                    *(part.split()[1] for part in name.split(", ")),
                    format_mean_std(
                        [m.history["train_loss"][-1] for m in (causal if "trained causal" in name else leaky)]
                    ),
                    format_mean_std([loss.mean().item() for loss in values]),
                )
                for name, values in losses.items()
            ),
            caption="With and without the mask. Training loss of the last step, validation loss over the whole split; "
            f"{len(causal)} seed{'s, mean ± standard deviation' if len(causal) > 1 else ''}",
            name="mistake",
        ),
        curves(causal, leaky),
        *generated(context, causal[0], leaky[0]),
        Prose(
            "The mask is what makes training on all positions at once the same as prediction. Where the model has "
            "found the copy, the symptom is a training loss too good to be true; the test, which needs no training, "
            "is that changing a later token changes no earlier output (exercise 21.11)."
        ),
    )


def curves(causal: list[TrainedModel], leaky: list[TrainedModel]) -> Figure:
    """Training loss and causal validation loss of both."""
    series = []
    for name, models in (("causal", causal), ("full", leaky)):
        for label, table, column in (
            ("training", "history", "train_loss"),
            ("in use", "evaluations", "validation_loss"),
        ):
            curve = getattr(models[0], table)
            series.append(Series(f"{name}, {label}", tuple(curve["step"]), tuple(curve[column])))
    return Figure(
        kind="line",
        series=tuple(series),
        x_label="step",
        y_label="loss (nats/token)",
        caption="Training loss under the training's own mask, validation loss under the causal one (first seed)",
    )


def generated(context: Context, causal: TrainedModel, leaky: TrainedModel) -> tuple[Sample, ...]:
    """The same prompt continued by both."""
    tokens = context.tokens(STUDY)[: LENGTH * 2]
    samples = []
    for name, trained in (("Trained with the causal mask", causal), ("Trained with full attention", leaky)):
        new = context.numbers["sample_tokens"]
        continued = generate(trained.model, tokens[None], new, generator=context.generator("sample"))
        text = trained.tokenizer.decode(continued[0, len(tokens) :].tolist())
        samples.append(
            Sample(name, trained.tokenizer.decode(tokens.tolist()), text, "sampled at temperature 1, causally")
        )
    return tuple(samples)


def checks(weights: dict[str, Tensor], losses: Losses, leaky: list[TrainedModel], unigram: float) -> tuple[Check, ...]:
    """The mask against its definition and torch's own, the counts, the sums; what the mistake should do."""
    mask, allw = causal_mask(LENGTH), torch.cat(list(weights.values()))
    q, k, v = torch.randn(3, 1, 2, LENGTH, 16, generator=torch.Generator().manual_seed(0)).unbind()
    ours = attention_weights(q, k, mask) @ v
    counts = (allw > 0).sum(dim=-1)
    cheating = mean_std([loss.mean().item() for loss in losses["trained full, read full"]])[0]
    broken = mean_std([loss.mean().item() for loss in losses["trained full, read causal"]])[0]
    healthy = mean_std([loss.mean().item() for loss in losses["trained causal, read causal"]])[0]
    return (
        Check.equal("the mask is the lower triangle", bool((mask == torch.ones_like(mask).tril()).all()), True),
        Check.at_most(
            "masked attention equals scaled_dot_product_attention(is_causal=True) (largest difference)",
            (ours - F.scaled_dot_product_attention(q, k, v, is_causal=True)).abs().max().item(),
            1e-5,
        ),
        Check.equal(
            "heads in which row i, from 0, does not have i + 1 non-zero weights",
            int((counts != torch.arange(1, LENGTH + 1)).sum()),
            0,
        ),
        Check.equal("sum of the masked weights", allw[:, ~mask].sum().item(), 0.0),
        Check.at_most("row sums differ from 1 by at most", largest_row_error(allw), 1e-6),
        Check.at_most("held-out loss with a view of the future (nats/token)", cheating, 0.5, "empirical"),
        Check.at_least(
            "causal loss of the model trained without the mask over the healthy one (nats)",
            broken - healthy,
            0.0,
            "empirical",
        ),
        Check.at_least(
            "causal loss of the model trained without the mask over letter frequencies (nats)",
            broken - unigram,
            0.0,
            "empirical",
        ),
    )


EXERCISE = Exercise(
    id="21.2",
    title="Causal Mask Properties",
    answer=answer,
    recipes=(STUDY, STUDY_BIDIRECTIONAL),
    numbers={"smoke": {"sample_tokens": 80}, "laptop": {"sample_tokens": 300}, "gpu": {"sample_tokens": 300}},
    seconds={"smoke": 2, "laptop": 3, "gpu": 6},
)
