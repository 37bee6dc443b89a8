"""Measures 21.20: cosines, principal components and norms of a learned table, of sinusoids and of noise."""

import math
from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from minigpt.analysis.position_analysis import (
    TableAnalysis,
    analyse,
    distance_correlation,
    nearest_positions,
    principal_components,
    sinusoidal_cosine,
    strongest_wave,
)
from minigpt.evaluation.words import spaced, words
from minigpt.positions import sinusoidal
from minigpt.pretrained.learned_positions import learned_positions
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.exercises.ex20_position_embeddings.findings import (
    LEARNED,
    NOISE,
    OWN,
    SINES,
    Accuracy,
    Findings,
    Norms,
    OwnModel,
    Principal,
    Rotation,
    Similarity,
    Snapshot,
    Studied,
    Wave,
)
from tasks.recipes.catalogue import POSITIONS

CELLS = 128  # rows of a drawn cosine matrix
COORDINATES, WAVES, CUMULATIVE = 4, 6, 20  # components kept over position, with their periods, with summed shares


def measure(context: Context) -> Findings:
    """Everything the answer rests on."""
    context.progress(0.0, "tables")
    pretrained, own = context.pretrained(), context.model(POSITIONS)
    tables = gather(context, own)
    analysed = [analyse(table) for _, _, table in tables]
    return Findings(
        model=pretrained.name,
        note=pretrained.note,
        tables=tuple(studied(*table, found) for table, found in zip(tables, analysed, strict=True)),
        own=OwnModel(
            name=POSITIONS.name,
            layers=own.model.config.n_layer,
            context=own.model.config.context,
            loss=own.evaluations["validation_loss"][-1],
            snapshots=emergence(context, own),
        ),
        word_length=word_length(context) if tables[0][0] == OWN else None,
        accuracy=accuracy([table for _, _, table in tables], analysed),
    )


def gather(context: Context, own: TrainedModel) -> list[tuple[str, str, Tensor]]:
    """Key, name and rows: the learned tables, the one in question first, and two baselines of its size."""
    pretrained = context.pretrained()
    assert own.model.position_embedding is not None
    tables = []
    if (table := learned_positions(pretrained.model)) is not None:
        tables.append((LEARNED, pretrained.name, table.cpu()))
    name = f"this project's model {POSITIONS.name}"
    tables.append((OWN, name, own.model.position_embedding.weight.detach().cpu()))
    length, width = tables[0][2].shape
    waves = sinusoidal(torch.arange(length), width - width % 2)
    scale = tables[0][2].double().square().mean().sqrt()
    noise = torch.randn(length, width, generator=context.generator("noise"), dtype=torch.float64) * scale
    return [*tables, (SINES, "sinusoidal", waves), (NOISE, "random Gaussian", noise)]


def study(key: str, name: str, table: Tensor) -> Studied:
    """Analyse a table."""
    return studied(key, name, table, analyse(table))


def studied(key: str, name: str, table: Tensor, found: TableAnalysis) -> Studied:
    """What was found in a table (T, C), as plain data."""
    length, width = table.shape
    return Studied(key, name, length, width, similarity(found), principal(found), norms(found))


def similarity(found: TableAnalysis) -> Similarity:
    """Cosines."""
    cosine, length = found.cosine, len(found.cosine)
    off = cosine[~torch.eye(length, dtype=torch.bool)]
    step = math.ceil(length / CELLS)
    return Similarity(
        mean=off.mean().item(),
        lowest=off.min().item(),
        highest=off.max().item(),
        near=found.near,
        far=found.far,
        adjacent=found.adjacent,
        within_3=found.nearest_within(3),
        reach=found.reach,
        stationary=found.stationary,
        correlation=distance_correlation(cosine),
        correlation_near=distance_correlation(cosine, length // 16),
        by_distance=tuple(found.by_distance.tolist()),
        first_pair=cosine[0, 1].item(),
        last_pair=cosine[length - 1, length - 2].item(),
        shown=tuple(tuple(round(v, 4) for v in row) for row in cosine[::step, ::step].tolist()),
        step=step,
    )


def principal(found: TableAnalysis) -> Principal:
    """Principal components."""
    v = found.variance
    return Principal(
        variance=tuple(v.tolist()),
        cumulative=tuple(v.cumsum(0)[:CUMULATIVE].tolist()),
        two=v[:2].sum().item(),
        three=found.top,
        dimensions=found.dimensions(),
        coordinates=tuple(map(tuple, found.components[:, :COORDINATES].T.tolist())),
        waves=tuple(Wave(**asdict(found.wave(k))) for k in range(min(WAVES, len(v)))),
        rotation=Rotation(**asdict(found.rotation)),
    )


def norms(found: TableAnalysis) -> Norms:
    """Lengths of the rows."""
    each = found.norms
    return Norms(
        each=tuple(each.tolist()),
        mean=each.mean().item(),
        median=each.median().item(),
        spread=(each.std() / each.mean()).item(),
        deviation=(each - each.median().item()).abs().median().item(),
    )


def emergence(context: Context, own: TrainedModel) -> tuple[Snapshot, ...]:
    """How the table of the project's own model came about, from its snapshots."""
    result = []
    for i, step in enumerate(own.snapshot_steps):
        context.progress(0.5 + 0.4 * i / len(own.snapshot_steps), f"table after {step} steps")
        embedding = own.load_snapshot(step).position_embedding
        assert embedding is not None
        found = analyse(embedding.weight)
        result.append(Snapshot(step, found.adjacent, found.near))
    return tuple(result)


def word_length(context: Context) -> float | None:
    """Characters of a word of the training text and the space after it, mean; None in a script without spaces."""
    text = context.text("train")
    found = words(text) if spaced(text) else []
    return 1 + sum(map(len, found)) / len(found) if found else None


def accuracy(tables: Sequence[Tensor], analysed: Sequence[TableAnalysis]) -> Accuracy:
    """Each tool against another way to the same number."""
    table, found, length = tables[0], analysed[0], len(tables[0])
    cosine, variance, coordinates = found.cosine, found.variance, found.components
    centred = table.double() - table.double().mean(dim=0)
    spectrum = torch.linalg.eigvalsh(centred.T @ centred).flip(0).clamp_min(0)[: len(variance)]
    gram = (coordinates @ coordinates.T - centred @ centred.T).abs().max() / (centred @ centred.T).abs().max()
    angle = (torch.arange(length, dtype=torch.float64) * 7).remainder(length).sqrt() * (math.pi / length**0.5)
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)  # points of half a circle, unevenly spaced, out of order
    gaps = (angle[:, None] - angle).abs().fill_diagonal_(math.inf)
    nearest = nearest_positions(circle @ circle.T)
    period = strongest_wave((torch.arange(length) * (2 * math.pi * 5 / length)).cos().double())
    flat = principal_components(torch.arange(length).double()[:, None] * torch.ones(1, 4).double())[0]
    return Accuracy(
        asymmetry=(cosine - cosine.T).abs().max().item(),
        diagonal=(cosine.diagonal() - 1).abs().max().item(),
        closed_form=(analysed[-2].cosine - sinusoidal_cosine(*tables[-2].shape)).abs().max().item(),
        shares=(variance - spectrum / spectrum.sum()).abs().max().item(),
        total_variance=variance.sum().item(),
        inner_products=gram.item(),
        line=flat[0].item(),
        arc=(gaps.gather(1, nearest[:, None])[:, 0] - gaps.min(dim=1).values).abs().max().item(),
        cycles=period.cycles,
    )


EXERCISE = Exercise(
    measure=measure,
    recipes=(POSITIONS,),
    sources=("main", "pretrained"),
    numbers={"smoke": {}, "laptop": {}, "gpu": {}},
    seconds={"smoke": 1, "laptop": 2, "gpu": 15},
)
