"""What is said of a user's own text and model: nothing secret, and one sentence where they cannot be read."""

import os
import stat
from pathlib import Path

import pytest

from tasks.cache.urls import without_secrets
from tasks.sources.references import SourceError
from tasks.sources.user import text_at, user_model


def test_a_corpus_by_address_is_named_without_its_password(tmp_path: Path) -> None:
    def download(url: str, cache: Path) -> tuple[Path, str]:
        (tmp_path / "text").write_text("A real text. " * 300)
        return tmp_path / "text", "0" * 64

    reference = text_at("https://ann:hunter2@example.org/novel.txt?X-Amz-Signature=s3cr3t", tmp_path, download)
    shown = f"{reference.name} {reference.description}"  # on the page, its shared edition, results, MLflow
    assert "hunter2" not in shown
    assert "s3cr3t" not in shown


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_weights_that_may_not_be_read_are_told_in_a_sentence(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if not stat.S_IMODE(folder.stat().st_mode) & 0o001:
            folder.chmod(0o711)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}')
    (model / "tokenizer.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"")
    (model / "model.safetensors").chmod(0o600)
    os.seteuid(65534)
    try:
        with pytest.raises(SourceError, match="--pretrained"):
            user_model(str(model))
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("run --corpus 'https://a:b@h.org/x.txt?sig=1&e=2#f' --jobs 2", "run --corpus 'https://h.org/x.txt' --jobs 2"),
        ("chapter run --corpus novel.txt --only 21.1", "chapter run --corpus novel.txt --only 21.1"),
        ("https://h.org/x", "https://h.org/x"),
    ],
)
def test_commands_without_secrets(said: str, shown: str) -> None:
    assert without_secrets(said) == shown
