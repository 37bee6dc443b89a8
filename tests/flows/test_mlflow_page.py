"""What somebody sees who opens MLflow by our addresses, in a browser that has never been there."""

from collections.abc import Iterator
from typing import Any

import pytest

from flows.servers import mlflow_server
from flows.shared_server import free_port
from tasks.tracking.tracker import Tracker
from tests.reports.conftest import browser  # noqa: F401
from tests.tasks.tracking.test_tracker import RECIPE, RECORD

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(300)]
SIZES = ("small", "medium", "large")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracker]:
    """A chapter with a model of each size, shown by a server."""
    home = tmp_path_factory.mktemp("outputs")
    with mlflow_server(home, free_port()) as url:
        tracker = Tracker(home, f"sqlite:///{home}/mlflow/mlflow.db", ui=url)
        with tracker.chapter(profile="smoke"):
            for size in SIZES:
                tracker.log_training(None, f"key-{size}", {**RECIPE, "name": size, "seed": 0}, RECORD)
        yield tracker


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:  # noqa: F811
    """A page of a new profile: nothing is remembered of which face was chosen before."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


def test_from_the_address_to_the_three_sizes_in_two_clicks(page: Any, shown: Tracker) -> None:
    """The list of runs, the chapter, and small, medium and large beside each other."""
    page.goto(shown.landing())
    page.get_by_role("link", name="chapter (smoke)").click()
    link = page.get_by_role("link", name="Small, medium and large beside each other")
    page.goto(link.get_attribute("href"))  # where a click leads, too
    page.get_by_text("Comparing 3 Runs from 1 Experiment").wait_for()
    for size in SIZES:
        page.get_by_text(f"{size} (seed 0)", exact=True).first.wait_for()
