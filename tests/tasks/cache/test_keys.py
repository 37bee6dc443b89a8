"""Cache keys: equal for equal work, different for different work, loud about what they cannot know."""

import json
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tasks.cache import keys
from tasks.cache.keys import Step, canonical, code_digests, digest, explain


@dataclass(frozen=True)
class Point:
    x: float
    y: tuple[int, ...]


def test_canonical_does_not_depend_on_order_or_container() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": (1, 2), "a": 1})
    assert canonical(Point(0.5, (1, 2))) == {"x": 0.5, "y": [1, 2]}


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.5), (1, "1"), (True, "True"), ([1, 2], [2, 1]), ({"a": 1}, {"a": 2}), (None, 0)]
)
def test_different_values_have_different_digests(one: object, other: object) -> None:
    assert digest(one) != digest(other)


@pytest.mark.parametrize("value", [torch.zeros(2), Path("x"), {1: 2}, {3}, object(), lambda: 1, b"bytes"])
def test_unknown_types_raise(value: object) -> None:
    with pytest.raises(TypeError, match="cannot make a cache key"):
        digest({"nested": [value]})


def test_not_a_number_has_a_digest() -> None:
    assert digest(float("nan")) == digest(float("nan")) != digest(float("inf"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A little package whose modules import one another."""
    package = tmp_path / "toyproject"
    package.mkdir()
    for name, source in {
        "__init__": "",
        "root": "from toyproject.helper import help_me\nimport os\n",
        "helper": "from .leaf import leaf\n\n\ndef help_me():\n    return leaf()\n",
        "leaf": "def leaf():\n    return 1\n",
        "bystander": "VALUE = 1\n",
    }.items():
        (package / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(keys, "PROJECT", ("toyproject",))
    monkeypatch.delitem(sys.modules, "toyproject", raising=False)  # of the test before, in another folder
    return package


def test_code_digest_follows_imports(project: Path) -> None:
    found = code_digests(["toyproject.root"])
    assert set(found) == {"toyproject.root", "toyproject.helper", "toyproject.leaf"}


def test_a_changed_leaf_changes_only_itself(project: Path) -> None:
    before = code_digests(["toyproject.root"])
    (project / "leaf.py").write_text("def leaf():\n    return 2\n")
    after = code_digests(["toyproject.root"])
    assert {name for name in before if before[name] != after[name]} == {"toyproject.leaf"}


@pytest.mark.parametrize(
    "source",
    [
        "def leaf():\n    return 1  # a comment\n",
        '"""A docstring."""\n\ndef leaf():\n    """Another."""\n    return 1\n',
        "def leaf():\n\n    return (1)\n",
    ],
)
def test_comments_docstrings_and_layout_do_not_count(project: Path, source: str) -> None:
    before = code_digests(["toyproject.leaf"])
    (project / "leaf.py").write_text(source)
    assert code_digests(["toyproject.leaf"]) == before


def test_imports_for_type_checkers_do_not_count(project: Path) -> None:
    (project / "root.py").write_text(
        textwrap.dedent(
            """
            from typing import TYPE_CHECKING
            if TYPE_CHECKING:
                from toyproject.helper import help_me
            """
        )
    )
    assert set(code_digests(["toyproject.root"])) == {"toyproject.root"}


def test_a_root_that_does_not_exist_raises(project: Path) -> None:
    with pytest.raises(ValueError, match="not a module of this project"):
        code_digests(["toyproject.nothing"])


def test_training_does_not_depend_on_decoding() -> None:
    modules = set(code_digests(["tasks.models.training"]))
    assert {"minigpt.train", "minigpt.model", "minigpt.objectives"} <= modules
    assert not modules & {
        "minigpt.decoding.sampling",
        "minigpt.decoding.watermark",
        "minigpt.decoding.speculative",
        "tasks.cache.store",
        "tasks.recipes.catalogue",
    }


def step(**changes: object) -> Step:
    record = {"key": "k", "artifacts": {"tokens": {"url": "blobs/x", "sha256": "abc", "size": 3}}}
    fields = {
        "kind": "train",
        "name": "train small",
        "inputs": {"recipe": {"seed": 0, "steps": 10}},
        "upstream": {"tokens": record},
        "code": {"minigpt.model": "d1"},
    }
    return Step(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_name_and_the_place_of_a_blob_are_not_in_the_key() -> None:
    elsewhere = {"key": "other", "artifacts": {"tokens": {"url": "s3://elsewhere", "sha256": "abc", "size": 3}}}
    assert step().key == step(name="other", upstream={"tokens": elsewhere}).key


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": {"recipe": {"seed": 1, "steps": 10}}}, "input recipe/seed (0 → 1) changed"),
        ({"code": {"minigpt.model": "d2"}}, "module minigpt.model"),
        ({"version": 2}, "version"),
        ({"upstream": {"tokens": {"key": "k", "artifacts": {"tokens": {"sha256": "zz"}}}}}, "upstream tokens/tokens"),
    ],
)
def test_every_ingredient_changes_the_key_and_is_named(changes: dict[str, object], words: str) -> None:
    changed = step(**changes)
    assert changed.key != step().key
    assert words in explain(step().ingredients(), changed.ingredients())


def test_explain_without_a_past_and_without_a_difference() -> None:
    assert explain(None, step().ingredients()) == "never run"
    assert explain(step().ingredients(), step().ingredients()) == "result lost"


def test_what_was_parsed_once_is_parsed_no_more(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second process, with the file of the first, finds the same digests without parsing anything."""
    file = tmp_path / "outputs" / "syntax.json"
    another_process(monkeypatch)
    with keys.syntax_kept_in(file):
        before = code_digests(["toyproject.root"])
    another_process(monkeypatch)
    monkeypatch.setattr(keys, "_Normalise", lambda: pytest.fail("parsed again"))
    with keys.syntax_kept_in(file):
        assert code_digests(["toyproject.root"]) == before


def test_an_edited_module_is_parsed_again(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "outputs" / "syntax.json"
    another_process(monkeypatch)
    with keys.syntax_kept_in(file):
        before = code_digests(["toyproject.root"])
    another_process(monkeypatch)
    source = project / "root.py"
    source.write_text(source.read_text() + "\nADDED = 1\n")
    with keys.syntax_kept_in(file):
        after = code_digests(["toyproject.root"])
    another_process(monkeypatch)
    assert after == code_digests(["toyproject.root"]), "with the file as without it"
    assert {name for name in before if before[name] != after[name]} == {"toyproject.root"}


def test_an_edit_during_a_run_changes_none_of_its_keys(project: Path, tmp_path: Path) -> None:
    """The run goes on with the code that it has imported, and stores what that code computes."""
    with keys.syntax_kept_in(tmp_path / "syntax.json"):
        before = code_digests(["toyproject.root"])
        (project / "leaf.py").write_text("def leaf():\n    return 2\n")
        with keys.syntax_kept_in(tmp_path / "syntax.json"):
            assert code_digests(["toyproject.root"]) == before
        assert code_digests(["toyproject.root"]) == before
    assert code_digests(["toyproject.root"])["toyproject.leaf"] != before["toyproject.leaf"]


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"maker": 1, "modules": {}}', "other Python"])
def test_a_file_that_cannot_be_trusted_counts_for_nothing(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    file = tmp_path / "outputs" / "syntax.json"
    another_process(monkeypatch)
    with keys.syntax_kept_in(file):
        before = code_digests(["toyproject.root"])
    kept = json.loads(file.read_text())
    for entry in kept["modules"].values():
        entry[1] = "wrong"
    kept["maker"][0] = "another version of Python"
    file.write_text(json.dumps(kept) if damage == "other Python" else damage)
    another_process(monkeypatch)
    with keys.syntax_kept_in(file):
        assert code_digests(["toyproject.root"]) == before


def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this process has parsed."""
    monkeypatch.setattr(keys, "_syntax", {})
    keys._parsed.cache_clear()
