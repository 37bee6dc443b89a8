"""Addresses on MLflow's page.

MLflow's page has two faces. The one that opens by default, for agents and prompts, shows an overview of traces and no
runs. Which is meant, the page reads from the search parameter ``workflowType`` of its own address, the one behind
``#``; it is not kept from link to link, so every address that is given to somebody is made here and carries it.
"""

import json
from collections.abc import Sequence
from urllib.parse import quote, urlencode

FACE = {"workflowType": "machine_learning"}


def run_page(ui: str, experiment: str, run: str) -> str:
    """One run, at the web interface ``ui``."""
    return _page(ui, f"experiments/{experiment}/runs/{run}")


def runs_page(ui: str, experiment: str) -> str:
    """The list of an experiment's runs; without an experiment the list of all experiments."""
    return _page(ui, f"experiments/{experiment}/runs" if experiment else "experiments")


def comparison_page(ui: str, experiment: str, runs: Sequence[str]) -> str:
    """Some runs beside each other: their curves, and what differs."""
    return _page(ui, "compare-runs", runs=json.dumps(runs), experiments=json.dumps([experiment]))


def _page(ui: str, route: str, **parameters: str) -> str:
    # The face comes last: the page of comparisons looks for its runs in the first place only.
    return f"{ui}/#/{route}?{urlencode({**parameters, **FACE}, quote_via=quote)}"
