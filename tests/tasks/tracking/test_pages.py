"""Addresses on MLflow's page: all of them open the face that has runs, and one place makes them."""

import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from markdown_it import MarkdownIt

from tasks.tracking.pages import comparison_page, run_page, runs_page

ROOT = Path(__file__).parents[3]
UI = "http://127.0.0.1:5000"


def route(address: str) -> tuple[str, dict[str, list[str]]]:
    """What MLflow's router reads: the part after ``#`` is an address of its own."""
    inner = urlsplit(urlsplit(address).fragment)
    return inner.path, parse_qs(inner.query, strict_parsing=True)


def test_each_address_says_which_face_is_meant() -> None:
    face = {"workflowType": ["machine_learning"]}
    assert route(run_page(UI, "7", "ab12")) == ("/experiments/7/runs/ab12", face)
    assert route(runs_page(UI, "7")) == ("/experiments/7/runs", face)
    assert route(runs_page(UI, "")) == ("/experiments", face)


def test_a_comparison_names_its_runs_first() -> None:
    """MLflow's page takes a query apart without its question mark, and finds only a first parameter by its name."""
    path, parameters = route(comparison_page(UI, "7", ["ab12", "cd34"]))
    assert path == "/compare-runs"
    assert json.loads(parameters["runs"][0]) == ["ab12", "cd34"]
    assert json.loads(parameters["experiments"][0]) == ["7"]
    assert list(parameters) == ["runs", "experiments", "workflowType"]


@pytest.mark.parametrize("address", [run_page(UI, "7", "ab12"), comparison_page(UI, "7", ["ab12", "cd34"])])
def test_links_in_markdown_are_whole(address: str) -> None:
    [token] = MarkdownIt().parseInline(f"[a run]({address})")
    assert [child.attrs.get("href") for child in token.children or [] if child.type == "link_open"] == [address]


def test_no_other_place_makes_addresses_of_it() -> None:
    files = [
        path for package in ("flows", "tasks", "reports") for path in (ROOT / package).rglob("*") if path.is_file()
    ]
    ours = re.compile(rb"workflowType|#/(experiments|compare)")
    assert {path.name for path in files if path.suffix != ".pyc" and ours.search(path.read_bytes())} == {"pages.py"}
