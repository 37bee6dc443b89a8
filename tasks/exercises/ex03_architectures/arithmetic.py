"""Closed forms on published numbers: parameters, training tokens and compute, and what scaling laws make of them."""

import math
from dataclasses import replace

from minigpt.config import GPTConfig
from minigpt.cost import published
from minigpt.cost.published import GPT1, GPT2, GPT3, PublishedModel
from minigpt.cost.scaling_laws import Law, SizeAndData, besiroglu_loss, contributions, hoffmann_loss, kaplan_loss

# The papers give words and bytes; the laws want tokens. Rules of thumb for English and 50,000 tokens, varied below.
TOKENS_PER_WORD, BYTES_PER_TOKEN = 4 / 3, 4.0
GPT1_EPOCHS = 100  # Radford et al. (2018), section 4.1

LAWS: dict[str, Law] = {
    "Kaplan et al. (2020)": kaplan_loss,
    "Hoffmann et al. (2022)": hoffmann_loss,
    "Besiroglu et al. (2024)": besiroglu_loss,
}
STEPS = ((GPT1, GPT2[-1]), (GPT2[-1], GPT3[-1]))
PAIRS = (  # models that differ in little
    ("size, same data", GPT2[0], GPT2[-1]),
    ("size, same data", GPT3[0], GPT3[-1]),
    ("data, context and sparse attention, same size", GPT2[0], GPT3[0]),
    ("data, context and sparse attention, same size", GPT2[1], GPT3[1]),
    ("data, context and sparse attention, about the same size", GPT2[2], GPT3[2]),
)


def parameters(
    *, n_layer: int, d_model: int, attention_width: int, vocab_size: int, context: int, final_norm: bool
) -> int:
    """Parameters of a GPT with tied embeddings and biases, where H · D need not be C.

    Per layer: qkv 3(CA + A), output AC + C, feed-forward 8C² + 5C, two norms 4C; then embeddings and the last norm.
    """
    c, a = d_model, attention_width
    layer = 3 * (c * a + a) + (a * c + c) + (8 * c * c + 5 * c) + 4 * c
    return n_layer * layer + (vocab_size + context) * c + (2 * c if final_norm else 0)


def count(config: GPTConfig) -> int:
    """The formula for a configuration, in which H · D = C."""
    return parameters(
        n_layer=config.n_layer,
        d_model=config.d_model,
        attention_width=config.d_model,
        vocab_size=config.vocab_size,
        context=config.context,
        final_norm=config.norm == "pre",
    )


def count_as_printed(model: PublishedModel) -> int:
    """The formula with the heads, head width and width of the published table, taken literally."""
    return parameters(
        n_layer=model.n_layer,
        d_model=model.d_model,
        attention_width=model.n_head * model.d_head,
        vocab_size=model.vocab_size,
        context=model.context,
        final_norm=model.norm == "pre",
    )


def count_in_old_vocabulary(model: PublishedModel) -> int:
    """The parameters that a GPT-2 would have with GPT-1's vocabulary."""
    return count(replace(model.consistent_config(), vocab_size=published.GPT1_VOCABULARY))


def tokens_of(family: str) -> float:
    """Training tokens of a family: of its corpus, estimated from words or bytes; of GPT-3 those that it read."""
    corpus = next(corpus for corpus in published.CORPORA if corpus.family == family)
    if corpus.words is not None:
        return corpus.words * TOKENS_PER_WORD
    return corpus.n_bytes / BYTES_PER_TOKEN if corpus.n_bytes is not None else corpus.tokens_seen or math.nan


def mix_tokens() -> tuple[float, float]:
    """Tokens in GPT-3's corpora, and how many different ones its training read: at most one epoch of each."""
    parts = published.GPT3_MIX
    billions = sum(p.tokens_billions for p in parts), sum(min(1.0, p.epochs) * p.tokens_billions for p in parts)
    return billions[0] * 1e9, billions[1] * 1e9


def training_flops(model: PublishedModel) -> float:
    """6 · parameters · tokens read (Kaplan et al., 2020, section 2.1), of GPT-1 and GPT-3."""
    epochs = GPT1_EPOCHS if model.family == "GPT-1" else 1
    return 6 * count(model.consistent_config()) * tokens_of(model.family) * epochs


def scale_for(law: Law, model: PublishedModel, factor: float = 1.0) -> SizeAndData:
    """Parameters and tokens as the law counts them: Kaplan et al. leave out the embeddings.

    ``factor`` multiplies tokens that are estimated, those of GPT-1 and GPT-2.
    """
    config = model.consistent_config()
    embeddings = (config.vocab_size + config.context) * config.d_model
    size = count(config) - (embeddings if law is kaplan_loss else 0)
    return size, tokens_of(model.family) * (1.0 if model.family == "GPT-3" else factor)


def shares(law: Law, factor: float = 1.0) -> list[tuple[float, float]]:
    """Loss saved by size and by data in each step from one family's largest model to the next's, in nats per token."""
    return [
        contributions(law, scale_for(law, before, factor), scale_for(law, after, factor)) for before, after in STEPS
    ]


def data_if_read_again(law: Law) -> float:
    """What data would save in the first step if each reading of GPT-1's text were worth new text, nats per token."""
    before, after = STEPS[0]
    size, tokens = scale_for(law, before)
    return contributions(law, (size, GPT1_EPOCHS * tokens), scale_for(law, after))[1]


def lambada_drop(before: PublishedModel, after: PublishedModel) -> float:
    """How much ln perplexity on LAMBADA falls from one model to another, nats; zero-shot, as published."""
    return math.log((before.lambada_perplexity or math.nan) / (after.lambada_perplexity or math.nan))


def factor_between(what: str, before: PublishedModel, after: PublishedModel) -> float:
    """By what factor two models differ in parameters, or in tokens where ``what`` is data."""
    sizes = [count(model.consistent_config()) for model in (before, after)]
    return sizes[1] / sizes[0] if what.startswith("size") else tokens_of(after.family) / tokens_of(before.family)
