"""A model of this project in Transformers format: to stand in for a pretrained one, and to be taken elsewhere."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer
from transformers import PreTrainedTokenizerFast as Fast

from minigpt.model import GPT
from minigpt.pretrained.export import to_gpt2
from minigpt.tokenizers import UNKNOWN, BPETokenizer, CharTokenizer, Tokenizer
from tasks.exercise import Pretrained
from tasks.models.reading import for_any_length


def transformers_tokenizer(tokenizer: Tokenizer, context: int) -> Any:
    """The Transformers tokenizer that gives the same ids.

    Args:
        tokenizer: of characters or of byte pairs.
        context: longest sequence of its model, in tokens.

    Raises:
        ValueError: any other tokenizer; words with implied spaces have no counterpart there.
    """
    options: dict[str, Any] = {"model_max_length": context, "clean_up_tokenization_spaces": False}
    if isinstance(tokenizer, CharTokenizer):
        vocabulary = {character: i for i, character in enumerate(tokenizer.characters)}
        fast = FastTokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
        fast.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        fast.decoder = decoders.Fuse()
        return Fast(tokenizer_object=fast, unk_token=UNKNOWN, **options)
    if isinstance(tokenizer, BPETokenizer):
        fast = FastTokenizer(models.BPE(tokenizer.encoder, list(tokenizer.ranks)))
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        fast.decoder = decoders.ByteLevel()
        if (
            tokenizer.end_of_text is not None
        ):  # ordinary text where it is written out, as in the project's own tokenizer
            options |= {"eos_token": "<|endoftext|>", "split_special_tokens": True}
        return Fast(tokenizer_object=fast, **options)
    raise ValueError(f"a {tokenizer.name} tokenizer has no counterpart in Transformers; use char or bpe")


def stand_in(model: GPT, tokenizer: Tokenizer) -> Pretrained:
    """A trained model of this project where no real pretrained one is used.

    Raises:
        ValueError: the model is not of GPT-2's architecture, or its tokenizer has no counterpart in Transformers.
    """
    exported: Any = to_gpt2(model)
    exported.set_attn_implementation("eager")
    fast = for_any_length(transformers_tokenizer(tokenizer, model.config.context))
    parameters = sum(weight.numel() for weight in exported.parameters())
    note = (
        f"No real pretrained model is used in this run: a GPT-2-architecture model that this project trained itself "
        f"({parameters:,} parameters, {model.config.n_layer} layers, {tokenizer.name} tokens) stands in, and what it "
        "shows says little about GPT-2."
    )
    return Pretrained("stand-in trained by this project", exported, fast, is_stand_in=True, note=note)


def save_for_transformers(model: GPT, tokenizer: Tokenizer, folder: Path) -> Path:
    """Write a directory that ``AutoModelForCausalLM`` and ``AutoTokenizer`` load; whole or not at all.

    Raises:
        ValueError: see ``stand_in``.
    """
    return save_pretrained(stand_in(model, tokenizer), folder)


def save_pretrained(pretrained: Pretrained, folder: Path) -> Path:
    """The same for a model that is in Transformers' hands already."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        pretrained.model.save_pretrained(temporary)
        pretrained.tokenizer.save_pretrained(temporary)
        temporary.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
