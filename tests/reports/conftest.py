"""The page of the sample results, made once, and the browser that opens it."""

import os
import shutil

import pytest

from reports import page
from reports.cache import DirectoryCache
from tests.reports import sample


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A cache of rendered sections, filled by ``html``."""
    return DirectoryCache(tmp_path_factory.mktemp("sections"))


@pytest.fixture(scope="session")
def html(cache) -> str:
    """The page of the sample results."""
    return page.render(results=sample.results(), run=sample.RUN, sections_cache=cache)


NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")  # it has an event loop, which must not run beside the tests of other files
def browser():
    """The system's Chromium, headless; without one its tests are skipped, or fail where ``CI`` is set."""
    give_up = pytest.fail if os.environ.get("CI") else pytest.skip
    binary = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if binary is None:
        give_up(f"no browser found: none of {', '.join(NAMES)} is on the path (Debian: apt install chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        give_up("playwright is not installed: pip install -e .[dev]")
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=binary, args=FLAGS)
        yield started
        started.close()
