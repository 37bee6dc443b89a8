"""The documentation's site: it is complete, and its build finds nothing to warn of. Where its packages are there."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
CONFIG = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
NAV = CONFIG.partition("\nnav:")[2].partition("\nplugins:")[0]


def test_each_module_of_minigpt_is_on_one_page() -> None:
    pages = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    files = [path.relative_to(ROOT) for path in (ROOT / "minigpt").rglob("*.py") if path.name != "__init__.py"]
    found = re.findall(r"^::: (\S+)", pages, re.MULTILINE)
    assert sorted(found) == sorted(".".join(file.with_suffix("").parts) for file in files)


def test_each_page_is_in_the_table_of_contents() -> None:
    listed = re.findall(r"[\w/-]+\.md", NAV)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_nothing_is_fetched_from_elsewhere() -> None:
    config = yaml.safe_load(CONFIG)
    assert config["theme"]["font"] is False
    assert config["strict"] is True
    assert not {"extra_javascript", "extra_css"} & config.keys()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="the extra docs is not installed: make docs")
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # Material's note on versions to come
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) >= len(list(DOCS.rglob("*.md")))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="?(https?://[^"\s>]+)', text)
        loaded += re.findall(r'<link[^>]* rel="?(?:stylesheet|preconnect|icon)[^>]* href="?(https?://[^"\s>]+)', text)
        assert not loaded, page.name
    model = (tmp_path / "api" / "model.html").read_text(encoding="utf-8")
    assert 'id="minigpt.model.GPT.forward"' in model
