"""A pretrained model's files read, and what such a model is: all of our code that its weights and notes depend on.

It is apart from ``tasks.models.pretrained``, which finds the files, so that a change of how they are found or fetched
runs nothing again.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from minigpt.pretrained.learned_positions import learned_positions
from tasks.models.quantised import keep_blocks, read_blocks
from tasks.sources.references import GPT2, Reference, SourceError

DEQUANTISED = 2  # counts the ways in which ``dequantise`` has done it, since what it makes is kept
BLOCKS = "blocks.safetensors"  # see ``tasks.models.quantised``


def read(folder: Path, where: str) -> tuple[Any, Any]:
    """Model and tokenizer of a directory in Transformers format.

    Raises:
        SourceError: it cannot be read, or does not hold a causal language model with its tokenizer.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {
        "dtype": torch.float32,
        "attn_implementation": "eager",
        "output_loading_info": True,
    }
    try:
        with _quietly():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            loaded: Any
            if (folder / BLOCKS).exists():
                config = AutoConfig.from_pretrained(folder, local_files_only=True)
                family: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
                weights = read_blocks(folder / BLOCKS)
                loaded = family.from_pretrained(None, config=config, state_dict=weights, **options)
            else:
                loaded = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:  # Transformers raises whatever its parts raise
        reason = " ".join(str(error).split())[:200]
        raise SourceError(f"{where}: cannot be loaded ({type(error).__name__}: {reason}); check its files.") from error
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise SourceError(f"{where}: its weights lack {missing[0]}; give a complete causal language model.")
    model.eval()
    vocabulary = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > vocabulary:
        raise SourceError(
            f"{where}: its tokenizer has {len(tokenizer)} tokens, its model {vocabulary}; they do not belong together."
        )
    if not is_causal(model):
        raise SourceError(f"{where}: later tokens change what it says of earlier ones; give a causal language model.")
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, for_any_length(tokenizer)


def for_any_length(tokenizer: Any) -> Any:
    """The tokenizer, without its warning of texts beyond the model's context: here, they are cut after encoding."""
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    return tokenizer


def is_causal(model: Any, length: int = 8) -> bool:
    """Whether changing the last token of a sequence leaves the logits before it as they are.

    Rounding may move them by a ten-thousandth of what the change does to the last position's own logits.
    """
    size = model.get_input_embeddings().num_embeddings
    tokens = torch.randint(size, (1, length), generator=torch.Generator().manual_seed(0))
    other = tokens.clone()
    other[0, -1] = (other[0, -1] + 1) % size
    with torch.inference_mode():
        change = (model(tokens).logits - model(other).logits).abs()[0]  # (T, V)
    return bool(change[:-1].max() <= 1e-4 * change[-1].max())


def dequantise(source: Path, folder: Path) -> None:
    """Turn a GGUF file into what ``read`` reads, with configuration and tokenizer.

    The weights are its own blocks where those give the same bits, or else 32 bits each.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _quietly(), contextlib.redirect_stderr(io.StringIO()):  # its progress bar knows no switch
        options: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
        model: Any = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **options)
        # The weights are plain fp32 by now; with these marks of the quantised file Transformers would not save them.
        model.hf_quantizer, model.is_quantized = None, False
        del model.config.quantization_config
        weights = {name: weight.detach() for name, weight in model.named_parameters()}
        if keep_blocks(weights, source, folder / BLOCKS):
            model.config.architectures = [type(model).__name__]
            model.config.save_pretrained(folder)
            model.generation_config.save_pretrained(folder)
        else:
            model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(source.parent, **options).save_pretrained(folder)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without Transformers' progress bars and advice."""
    import transformers

    logging: Any = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


# --- What a model is ------------------------------------------------------------------------------------------


def facts(model: Any) -> dict[str, Any]:
    """Architecture facts of a Transformers model, from its configuration and modules.

    ``layers``, ``heads``, ``kv_heads``, ``width``, ``context`` (0: unbounded), ``positions`` (``learned``, ``rope``,
    ``alibi`` or ``none``), ``vocabulary``, ``parameters`` (shared ones once), ``architecture``.
    """
    config = model.config.get_text_config()
    heads = int(getattr(config, "num_attention_heads", 0) or 0)
    return {
        "layers": int(config.num_hidden_layers),
        "heads": heads,
        "kv_heads": int(getattr(config, "num_key_value_heads", None) or heads),
        "width": int(config.hidden_size),
        "context": int(getattr(config, "max_position_embeddings", 0) or 0),
        "positions": positions(model),
        "vocabulary": int(config.vocab_size),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "architecture": type(model).__name__,
    }


def positions(model: Any) -> str:
    """How a model knows where a token stands: ``learned``, ``rope``, ``alibi`` or ``none``."""
    if learned_positions(model) is not None:
        return "learned"
    config = model.config.get_text_config()
    rotary = ("rope_parameters", "rope_theta", "rotary_dim", "rotary_pct")
    if any(getattr(config, name, None) for name in rotary):
        return "rope"
    alibi = getattr(config, "alibi", False) or config.model_type in ("bloom", "mpt")
    return "alibi" if alibi else "none"


def note_on(reference: Reference, model: Any) -> str:
    """What readers should know; nothing for the GPT-2 that the book means."""
    if reference.kind == "hub-model" and reference.name == GPT2:
        return ""
    known = facts(model)
    shared = f" sharing {known['kv_heads']} key/value heads" if known["kv_heads"] != known["heads"] else ""
    note = (
        f"{reference.name} stands where the book uses GPT-2: {known['parameters'] / 1e6:.0f} M parameters, "
        f"{known['layers']} layers, {known['heads']} query heads{shared}, {known['positions']} positions."
    )
    if reference.kind == "gguf":
        note += " It was tuned to follow instructions, and its weights went through 4 bits: it is not at its best."
    if known["positions"] != "learned":
        note += " Questions on learned positions are answered from this project's own GPT-2-architecture model."
    return note
