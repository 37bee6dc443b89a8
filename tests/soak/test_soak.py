"""The soak in six minutes: each kind of fault once, at moments that are waited for."""

import time
from pathlib import Path

import pytest

from tests.soak.faults import AWAY, JUMPS, KILLS, OUTAGES, Fault, planned
from tests.soak.soak import Course, Soak
from tests.soak.verdict import after, table


def test_a_seed_repeats_the_faults() -> None:
    faults = planned(7, 20, 30, 14)
    assert faults == planned(7, 20, 30, 14)
    assert faults != planned(8, 20, 30, 14)
    assert [sum(fault.kind == kind for fault in faults) for kind in (*KILLS, *OUTAGES)] == [8, 8, 7, 7, *[2] * 7]
    assert all(fault.seconds in AWAY[fault.kind] for fault in faults if not fault.is_kill)  # type: ignore[index]
    long = planned(7, 60, 30, 28)
    assert {fault.seconds for fault in long if fault.kind == "prefect"} == set(AWAY["prefect"])
    assert {fault.jump for fault in long if fault.kind == "clock"} == set(JUMPS)
    assert not any(fault.kind == "disk" for fault in planned(7, 20, 30, 14, without=["disk"]))
    assert 14 <= sum(fault.after for fault in faults) / 60 <= 26


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.timeout(1_500)
def test_a_short_soak(tmp_path: Path) -> None:
    faults = [
        Fault("training", 0.0),
        Fault("store busy", 1.0, seconds=5.0),
        Fault("mlflow", 0.0, seconds=10.0),
        Fault("worker", 5.0),
        Fault("store away", 2.0, seconds=4.0),
        Fault("host", 5.0, pool="cpu", fresh=True),
        Fault("prefect", 2.0, seconds=15.0),
    ]
    begun = time.monotonic()
    with Soak(tmp_path, Course(faults, only=("21.11", "21.15"), at_once=1, silence=45.0), seed=1) as soak:
        soak.run()
        checks = after(soak)
    said = table(soak, checks, 1, (time.monotonic() - begun) / 60)
    print(said)
    assert all(check.holds for check in checks), said
    assert sum(soak.told.kills.values()) == 3
    assert sum(soak.told.outages.values()) == 4
    assert soak.store.refused > 0
