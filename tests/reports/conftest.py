"""The page of the sample results, made once."""

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
