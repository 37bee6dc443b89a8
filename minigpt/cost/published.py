"""What was published about GPT-1, GPT-2 and GPT-3: the numbers of the papers, as printed, with their sources.

Nothing here is computed. Where a printed number cannot be right it stands here all the same, and
``consistent_config`` says which architecture agrees with the rest of its table.

    Radford et al. (2018), "Improving Language Understanding by Generative Pre-Training"
    Radford et al. (2019), "Language Models are Unsupervised Multitask Learners"
    Brown et al. (2020), "Language Models are Few-Shot Learners", https://arxiv.org/abs/2005.14165
"""

from dataclasses import dataclass
from typing import Literal

from minigpt.config import GPTConfig, Norm

Family = Literal["GPT-1", "GPT-2", "GPT-3"]

GPT1_VOCABULARY = 40_478  # 40,000 merges, 478 base and special tokens: the released encoder
GPT2_VOCABULARY = 50_257  # 50,000 merges, 256 bytes, <|endoftext|>


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """One row of a published table, as printed; parameters in millions."""

    family: Family
    name: str
    parameters_millions: float
    n_layer: int
    d_model: int
    n_head: int
    d_head: int
    context: int
    vocab_size: int
    norm: Norm
    data: str
    detailed_parameters_millions: float | None = None  # a second, more precise count by the same authors
    lambada_perplexity: float | None = None  # zero-shot

    @property
    def heads_fit(self) -> bool:
        """Whether heads times head width is the width of the model."""
        return self.n_head * self.d_head == self.d_model

    def consistent_config(self) -> GPTConfig:
        """The architecture, where need be with the heads or the width that agree with the head width.

        A width that is no multiple of the head width is replaced by heads × head width, as GPT-3 13B's; otherwise
        the number of heads is what the width and the head width give, as GPT-3 XL's.
        """
        d_model = self.d_model if self.d_model % self.d_head == 0 else self.n_head * self.d_head
        return GPTConfig(
            n_layer=self.n_layer,
            n_head=d_model // self.d_head,
            d_model=d_model,
            context=self.context,
            vocab_size=self.vocab_size,
            norm=self.norm,
        )


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Training data of a family, in the unit in which its size was published."""

    family: Family
    description: str
    words: float | None = None
    n_bytes: float | None = None
    tokens_seen: float | None = None


@dataclass(frozen=True)
class MixPart:
    """One row of Brown et al. (2020), table 2.2."""

    name: str
    tokens_billions: float
    weight: float
    epochs: float  # elapsed in 300 billion tokens, as printed


# Zhu et al. (2015), table 2; Radford et al. (2019), section 2.1; Brown et al. (2020), table 2.2 and table D.1.
CORPORA = (
    Corpus(family="GPT-1", description="BooksCorpus: 985 M words", words=984_846_357),
    Corpus(family="GPT-2", description="WebText: 40 GB, 8 M documents", n_bytes=40e9),
    Corpus(
        family="GPT-3",
        description="Common Crawl, WebText2, books, Wikipedia: 499 B tokens, 300 B read",
        tokens_seen=300e9,
    ),
)

GPT3_MIX = (
    MixPart("Common Crawl (filtered)", 410, 0.60, 0.44),
    MixPart("WebText2", 19, 0.22, 2.9),
    MixPart("Books1", 12, 0.08, 1.9),
    MixPart("Books2", 55, 0.08, 0.43),
    MixPart("Wikipedia", 3, 0.03, 3.4),
)

# What each column of the table rests on, per family: GPT-1, GPT-2, GPT-3.
SOURCES: dict[str, tuple[str, str, str]] = {
    "parameters": ("GPT-2 paper, section 3 and table 2", "GPT-2 paper, table 2", "GPT-3 paper, table 2.1"),
    "layers": ("GPT-1 paper, section 4.1", "GPT-2 paper, table 2", "GPT-3 paper, table 2.1"),
    "hidden dimension": ("GPT-1 paper, section 4.1", "GPT-2 paper, table 2", "GPT-3 paper, table 2.1"),
    "heads": ("GPT-1 paper, section 4.1", "released hparams.json", "GPT-3 paper, table 2.1"),
    "head dimension": ("hidden dimension / heads", "hidden dimension / heads", "GPT-3 paper, table 2.1"),
    "context": ("GPT-1 paper, section 4.1", "GPT-2 paper, section 2.3", "GPT-3 paper, section 2.1"),
    "vocabulary": (
        "released encoder; 40,000 merges in GPT-1 paper, section 4.1",
        "GPT-2 paper, section 2.3",
        "GPT-3 paper, section 2.1: as GPT-2",
    ),
    "training data": (
        "Zhu et al. (2015), table 2; GPT-1 paper, section 4.1: over 7,000 books",
        "GPT-2 paper, section 2.1",
        "GPT-3 paper, section 2.2 and table 2.2",
    ),
    "layer norm": (
        "GPT-1 paper, section 4.1: the original Transformer's decoder",
        "GPT-2 paper, section 2.3: moved to the input of each sub-block",
        "GPT-3 paper, section 2.1: as GPT-2",
    ),
}


def _gpt2(name: str, parameters: float, layers: int, width: int, heads: int, lambada: float) -> PublishedModel:
    return PublishedModel(
        family="GPT-2",
        name=name,
        parameters_millions=parameters,
        n_layer=layers,
        d_model=width,
        n_head=heads,
        d_head=width // heads,
        context=1024,
        vocab_size=GPT2_VOCABULARY,
        norm="pre",
        data=CORPORA[1].description,
        lambada_perplexity=lambada,
    )


def _gpt3(
    name: str, parameters: float, detailed: float, layers: int, width: int, heads: int, head: int, lambada: float
) -> PublishedModel:
    return PublishedModel(
        family="GPT-3",
        name=name,
        parameters_millions=parameters,
        detailed_parameters_millions=detailed,
        n_layer=layers,
        d_model=width,
        n_head=heads,
        d_head=head,
        context=2048,
        vocab_size=GPT2_VOCABULARY,
        norm="pre",
        data=CORPORA[2].description,
        lambada_perplexity=lambada,
    )


GPT1 = PublishedModel(
    family="GPT-1",
    name="GPT-1",
    parameters_millions=117,
    n_layer=12,
    d_model=768,
    n_head=12,
    d_head=64,
    context=512,
    vocab_size=GPT1_VOCABULARY,
    norm="post",
    data=CORPORA[0].description,
)

# Table 2; LAMBADA from table 3. The heads are in the released hparams.json of each size.
GPT2 = (
    _gpt2("GPT-2 small", 117, 12, 768, 12, 35.13),
    _gpt2("GPT-2 medium", 345, 24, 1024, 16, 15.60),
    _gpt2("GPT-2 large", 762, 36, 1280, 20, 10.87),
    _gpt2("GPT-2 XL", 1542, 48, 1600, 25, 8.63),
)

# Table 2.1; the second count from table D.1; LAMBADA, zero-shot, from table H.1.
GPT3 = (
    _gpt3("GPT-3 small", 125, 125, 12, 768, 12, 64, 18.6),
    _gpt3("GPT-3 medium", 350, 356, 24, 1024, 16, 64, 9.09),
    _gpt3("GPT-3 large", 760, 760, 24, 1536, 16, 96, 6.53),
    _gpt3("GPT-3 XL", 1_300, 1_320, 24, 2048, 24, 128, 5.44),
    _gpt3("GPT-3 2.7B", 2_700, 2_650, 32, 2560, 32, 80, 4.60),
    _gpt3("GPT-3 6.7B", 6_700, 6_660, 32, 4096, 32, 128, 4.00),
    _gpt3("GPT-3 13B", 13_000, 12_850, 40, 5140, 40, 128, 3.56),
    _gpt3("GPT-3 175B", 175_000, 174_600, 96, 12288, 96, 128, 3.00),
)

MODELS = (GPT1, *GPT2, *GPT3)

GPT3_TRAINING_FLOPS = 3.14e23  # of the largest model: Brown et al. (2020), table D.1

# Brown et al. (2020), table 3.8: SuperGLUE test average, and Word-in-Context, where chance is 50 (accuracy, percent).
SUPERGLUE = {"fine-tuned state of the art": 89.0, "fine-tuned BERT-Large": 69.0, "GPT-3 175B, few-shot": 71.8}
WIC_FEW_SHOT, WIC_CHANCE = 49.4, 50.0
BERT_LARGE_PARAMETERS = 340e6  # Devlin et al. (2019), section 3
