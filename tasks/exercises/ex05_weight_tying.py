"""Exercise 21.5: one matrix for embedding and unembedding: what it saves, what it ties together, what it costs."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.cost.published import GPT1, GPT2, GPT3
from minigpt.evaluation.statistics import format_mean_std, mean_std
from minigpt.model import GPT
from reports.types import Answer, Block, Check, Part, Prose, Table
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.recipes.catalogue import STUDY, STUDY_UNTIED
from tasks.study_legacy import Variant, comparisons, curves, metrics, sentences, table, variants

VOCABULARY, WIDTH = 50_257, 768
GPT2_SMALL = GPTConfig(n_layer=12, n_head=12, d_model=WIDTH, context=1024, vocab_size=VOCABULARY)
MIB = 2**20


def count(config: GPTConfig, *, tied: bool) -> int:
    """Parameters of a real model, built without memory; a tensor that two modules share counts once."""
    with torch.device("meta"):
        return sum(p.numel() for p in GPT(replace(config, tie_weights=tied)).parameters())


def geometry(embedding: Tensor) -> Tensor:
    """Cosines between the embeddings of all pairs of tokens, their mean removed first, (V, C) → (V(V-1)/2,)."""
    unit = F.normalize(embedding - embedding.mean(dim=0), dim=-1)
    first, second = torch.triu_indices(len(unit), len(unit), offset=1)
    return (unit @ unit.T)[first, second]


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of all entries."""
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def direct_path(model: GPT) -> Tensor:
    """Logits that the residual stream carries past all blocks, (V, V): row = token read, column = token predicted.

    Up to the final norm: Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits", zero layers.
    """
    return (model.token_embedding.weight @ model.unembedding.weight.T).detach()


def asymmetry(matrix: Tensor) -> float:
    """‖A - Aᵀ‖ / ‖A + Aᵀ‖: 0 for a symmetric matrix, 1 where no pair has anything to do with its reverse."""
    return float(torch.linalg.norm(matrix - matrix.T) / torch.linalg.norm(matrix + matrix.T))


def log_bigrams(tokens: Tensor, vocab_size: int) -> Tensor:
    """ln P(next | current) with one added to every count, each row's mean removed, (V, V)."""
    pairs = tokens[:-1] * vocab_size + tokens[1:]
    counts = torch.bincount(pairs, minlength=vocab_size**2).view(vocab_size, vocab_size).double() + 1
    logs = (counts / counts.sum(dim=1, keepdim=True)).log()
    return (logs - logs.mean(dim=1, keepdim=True)).float()


def answer(context: Context) -> Answer:
    """All three parts."""
    rows = variants(context, {"tied embeddings": STUDY, "untied embeddings": STUDY_UNTIED})
    tied, untied = (row.models for row in rows)
    saved, with_tie, without = VOCABULARY * WIDTH, count(GPT2_SMALL, tied=True), count(GPT2_SMALL, tied=False)
    likeness = similarities(tied, untied)
    bigrams = log_bigrams(context.tokens(STUDY, "train").cpu(), tied[0].model.config.vocab_size)
    numbers: dict[str, float | int] = {
        "saved_parameters": saved,
        "saved_fp32_mib": saved * 4 / MIB,
        "saved_fp16_mib": saved * 2 / MIB,
        "gpt2_small_parameters_tied": with_tie,
        "gpt2_small_parameters_untied": without,
        "saved_share_of_untied": saved / without,
        "shared_matrix_share_of_tied": saved / with_tie,
        **metrics(rows),
        "validation_loss_untied_minus_tied_nats": comparisons(rows)[0].difference,
        **{f"similarity_{name.replace(' ', '_')}": mean_std(values)[0] for name, values in likeness.items()},
        **{
            f"direct_path_correlation_with_bigrams_{name}": mean_std(bigram_correlations(row, bigrams))[0]
            for name, row in zip(("tied", "untied"), rows, strict=True)
        },
        "direct_path_asymmetry_tied": mean_std([asymmetry(direct_path(m.model)) for m in tied])[0],
        "direct_path_asymmetry_untied": mean_std([asymmetry(direct_path(m.model)) for m in untied])[0],
        "bigram_asymmetry": asymmetry(bigrams),
    }
    return Answer(
        summary=f"Tying saves {saved:,} parameters, {saved * 4 / MIB:.1f} MiB in fp32 and {saved / without:.1%} of an "
        f"untied GPT-2 small. {sentences(rows)}",
        parts=(
            Part("a", part_a(likeness), "why one matrix may serve both"),
            Part("b", part_b(numbers), "parameters saved"),
            Part("c", part_c(rows, bigrams), "can tying hurt"),
        ),
        checks=checks(tied, untied, numbers),
        metrics=numbers,
    )


def similarities(tied: Sequence[TrainedModel], untied: Sequence[TrainedModel]) -> dict[str, list[float]]:
    """How alike the geometries of the three matrices are, for each seed."""
    result: dict[str, list[float]] = {"untied input and untied output": [], "tied and untied input": []}
    result["tied and untied output"] = []
    for one, two in zip(tied, untied, strict=True):
        shared = geometry(one.model.token_embedding.weight.detach())
        read = geometry(two.model.token_embedding.weight.detach())
        written = geometry(two.model.unembedding.weight.detach())
        result["untied input and untied output"].append(correlation(read, written))
        result["tied and untied input"].append(correlation(shared, read))
        result["tied and untied output"].append(correlation(shared, written))
    return result


def part_a(likeness: dict[str, list[float]]) -> tuple[Block, ...]:
    """The intuition, and whether models that are free to choose agree with it."""
    own, to_input, to_output = (mean_std(values)[0] for values in likeness.values())
    verdict = "Hardly" if own < 0.25 else "Only in part" if own < 0.6 else "Largely"
    nearer = "output" if to_output > to_input else "input"
    comment = {
        "output": "as Press & Wolf (2017) found for words: the output, which trains every row at every step, prevails",
        "input": "unlike the word models of Press & Wolf (2017), whose shared matrix resembled the output",
    }[nearer]
    return (
        Prose(
            r"The logit of token $v$ is an inner product of the last hidden state with a vector of that token, "
            r"$\ell_v = h^\top u_v$. The network therefore writes, in the space of these vectors, what the next "
            "token is like, and the token it resembles most wins. If vectors are to say what tokens mean, it is "
            "natural to use those by which tokens are read, $u_v = e_v$: tokens that can replace each other should "
            "be near each other on both sides. Tying also teaches rare tokens: a row of the input matrix has a "
            "gradient only when its token is read, a row of the output matrix at every step, and the shared row gets "
            "both (Press & Wolf, 2017; Inan et al., 2017)."
        ),
        Prose(
            f"Would a model choose that by itself? {verdict}. In the models trained here with two matrices, the "
            f"cosines between pairs of tokens in the input matrix and in the output matrix correlate at {own:.2f}. The "
            f"shared matrix of the tied models resembles the untied {nearer} matrix ({max(to_input, to_output):.2f}) "
            f"more than the other ({min(to_input, to_output):.2f}), {comment}."
        ),
        Table(
            columns=("matrices", "correlation of token geometries"),
            rows=tuple((name, format_mean_std(values)) for name, values in likeness.items()),
            caption="Correlation over all pairs of tokens of their cosines in two matrices, mean ± standard deviation",
            name="geometry",
        ),
    )


def latex(number: float) -> str:
    """A whole number in groups of three, for a formula."""
    return f"{number:,.0f}".replace(",", "{,}")


def part_b(numbers: dict[str, float | int]) -> tuple[Block, ...]:
    """The saving for the given sizes, and what it is of models of other sizes."""
    rows = []
    for model in (GPT1, *GPT2, GPT3[3], GPT3[-1]):
        config = model.consistent_config()
        matrix, total = config.vocab_size * config.d_model, count(config, tied=False)
        rows.append((model.name, config.vocab_size, config.d_model, matrix, matrix * 4 / MIB, total, matrix / total))
    return (
        Prose(
            rf"One matrix of $V \times C$ numbers less: ${latex(VOCABULARY)} \times {WIDTH} = "
            f"{latex(numbers['saved_parameters'])}$ parameters, {numbers['saved_fp32_mib']:.2f} MiB in fp32 or "
            f"{numbers['saved_fp16_mib']:.2f} MiB in fp16. GPT-2 small has {numbers['gpt2_small_parameters_tied']:,} "
            f"parameters tied and {numbers['gpt2_small_parameters_untied']:,} untied, so tying removes "
            f"{numbers['saved_share_of_untied']:.2%} of the untied model, and the matrix that is left makes up "
            f"{numbers['shared_matrix_share_of_tied']:.2%} of the tied one. In GPT-3 175B it would be "
            f"{rows[-1][-1]:.2%}. In training the gradient and Adam's two moments of the same size are saved as "
            "well. No computation is saved: the product with the matrix remains."
        ),
        Table(
            columns=("model", "V", "C", "saved parameters", "saved, fp32 (MiB)", "parameters untied", "share saved"),
            rows=tuple(rows),
            caption="What tying saves in published architectures",
            name="savings",
        ),
    )


def part_c(rows: list[Variant], bigrams: Tensor) -> tuple[Block, ...]:
    """The trained pair, and the limit that tying sets."""
    outcome = {
        "lower": "It can, and here it does.",
        "higher": "It can, but here it helps.",
        "noise": "It can, but here neither harm nor help stands out of the noise.",
        "one seed": "It can; one seed cannot tell whether it does here.",
    }[comparisons(rows)[0].verdict]
    diagonal = torch.arange(len(bigrams))
    itself = [(path.argmax(dim=1) == diagonal).double().mean().item() for path in direct_paths(rows[0])]
    return (
        Prose(
            f"{outcome} {sentences(rows)} The products computed are the same; the untied model has "
            f"{rows[1].parameters - rows[0].parameters:,} parameters more, few because its tokens are characters."
        ),
        table(rows, name="tied_untied", caption="The same model with one matrix and with two."),
        curves(rows, caption="Tied and untied embeddings"),
        Prose(
            r"One limit can be seen in the formula. What the residual stream carries past all blocks gives the logits "
            r"$e_x^\top u_v$ for token $v$ after token $x$. Tied, this is $e_x^\top e_v$, which is symmetric: “q” "
            f"after “u” gets the logit of “u” after “q”; and for {mean_std(itself)[0]:.0%} of the tokens it is "
            "largest at $v = x$, a token calling for itself. The bigrams of the training text are not symmetric. The "
            "blocks have to correct that, which costs them capacity; free matrices can store bigrams directly "
            "(Elhage et al., 2021), and the table shows how far these do."
        ),
        direct_path_table(rows, bigrams),
        Prose(
            "Untied weights may be preferable when the matrix is a small share of the model and there is little to "
            "gain, when there is data enough to train both, when the model is shallow and must leave the input "
            "geometry in few blocks, or when the two sides do different work, as in an encoder, whose output matrix "
            "is thrown away after pre-training (Chung et al., 2021, found decoupling better there). GPT-2 and "
            f"SmolLM2-135M tie, Llama 2 7B does not. This comparison is of one small size and a vocabulary of "
            f"{len(bigrams)} characters; with 50,000 tokens, "
            "of which most are rare, tying may have more to give."
        ),
    )


def direct_paths(row: Variant) -> list[Tensor]:
    """The direct path of every seed, on the CPU."""
    return [direct_path(m.model).cpu() for m in row.models]


def bigram_correlations(row: Variant, bigrams: Tensor) -> list[float]:
    """Correlation of every seed's direct path, each row's mean removed, with the log-bigrams."""
    return [correlation(path - path.mean(dim=1, keepdim=True), bigrams) for path in direct_paths(row)]


def direct_path_table(rows: list[Variant], bigrams: Tensor) -> Table:
    """How far the direct path is that of bigrams."""
    cells: list[tuple[str, str, str]] = []
    for row in rows:
        asymmetries = [asymmetry(path) for path in direct_paths(row)]
        cells.append((row.label, format_mean_std(asymmetries), format_mean_std(bigram_correlations(row, bigrams))))
    return Table(
        columns=("", "asymmetry ‖A - Aᵀ‖ / ‖A + Aᵀ‖", "correlation with the bigrams"),
        rows=(*cells, ("ln P(next | current) in the training text", f"{asymmetry(bigrams):.3f}", "1")),
        caption="Logits of the direct path past all blocks, mean ± standard deviation over seeds",
        name="direct_path",
    )


def checks(
    tied: Sequence[TrainedModel], untied: Sequence[TrainedModel], numbers: dict[str, float | int]
) -> tuple[Check, ...]:
    """Counts on built models, identity of the storage, symmetry of the direct path."""
    one, two = tied[0].model, untied[0].model
    built = numbers["gpt2_small_parameters_untied"] - numbers["gpt2_small_parameters_tied"]
    trained = sum(p.numel() for p in two.parameters()) - sum(p.numel() for p in one.parameters())
    shares = [m.token_embedding.weight.data_ptr() == m.unembedding.weight.data_ptr() for m in (one, two)]
    return (
        Check.equal(
            "V · C equals the difference of two built models of GPT-2 small's shape", VOCABULARY * WIDTH, built
        ),
        Check.equal(
            "V · C equals the difference of the two trained models", one.config.vocab_size * one.config.d_model, trained
        ),
        Check.equal(
            "the tied model reads and writes with one storage, the untied one does not", str(shares), "[True, False]"
        ),
        Check.at_most("asymmetry of the tied direct path", asymmetry(direct_path(one)), 1e-5),
        Check.at_least(
            "untied loss minus tied loss (nats/token): tying does not hurt small models, as in Press & Wolf (2017)",
            numbers["validation_loss_untied_minus_tied_nats"],
            0.0,
            "empirical",
        ),
    )


EXERCISE = Exercise(
    id="21.5",
    title="Weight Tying",
    answer=answer,
    recipes=(STUDY, STUDY_UNTIED),
    numbers={"smoke": {}, "laptop": {}, "gpu": {}},
    timed=True,
    seconds={"smoke": 3, "laptop": 2, "gpu": 10},
)
