"""The arithmetic of the overhead benchmark, on a run made by hand."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.cache.store import Store
from tests.benchmarks.bench_overhead import covered, orchestration
from tests.tasks.cache.test_store import persist

STARTED = 1_790_000_000.0


def test_time_in_which_steps_overlap_counts_once() -> None:
    assert covered([(1, 3), (0, 2), (5, 6), (5.5, 5.6)]) == 4.0


def test_orchestration_is_the_time_in_which_no_step_of_this_run_works(tmp_path: Path) -> None:
    """Steps at 2-6 s and 4-8 s of a run of 10 s, and one of the day before."""
    store = Store(str(tmp_path / "store"))
    for key, end, seconds in (("a", 6.0, 4.0), ("b", 8.0, 4.0), ("old", -86_400.0, 4.0)):
        file = persist(store, key, data={"seconds": seconds})
        os.utime(file, (STARTED + end, STARTED + end))
    (tmp_path / "latest").mkdir()
    run = {"started": datetime.fromtimestamp(STARTED, UTC).isoformat(timespec="seconds")}
    (tmp_path / "latest" / "summary.json").write_text(json.dumps({"profile": "smoke", "run": run}))
    found = orchestration(tmp_path, wall=10.0)
    assert found["steps"] == 2
    assert found["work"] == pytest.approx(6.0)
    assert found["share"] == pytest.approx(0.4)
