"""What a step has waited for devices is no time of devices."""

from dataclasses import dataclass

import pytest

from weakteach.artifacts import computing
from weakteach.artifacts.computing import obtain
from weakteach.artifacts.step import Step
from weakteach.artifacts.store import Store

# Seconds until each report, and whether the step waits then.
STARTS_LATE = ((0, False), (15, True), (15, True), (12, False), (8, False))
NEVER_WAITS = ((0, False), (20, False))
WAITS_TWICE = (*STARTS_LATE, (2, True), (3, False), (10, False))


@dataclass(frozen=True)
class Told(Step):
    """A step that tells its progress at these times, on two devices."""

    reports: tuple[tuple[int, bool], ...]

    def compute(self, workspace):
        for seconds, waits in self.reports:
            Told.now += seconds
            workspace.progress(0, 10, waits=waits)
        return {"devices": 2}


@pytest.mark.parametrize(
    ("reports", "seconds", "at_work"),
    [(STARTS_LATE, 50, 8), (NEVER_WAITS, 20, 20), (WAITS_TWICE, 65, 18)],
    ids=["starts late", "never waits", "waits twice"],
)
def test_a_wait_for_devices_is_not_counted(tmp_path, monkeypatch, reports, seconds, at_work):
    Told.now = 1000.0
    monkeypatch.setattr(computing.time, "monotonic", lambda: Told.now)
    told = []
    record = obtain(Store(tmp_path), Told(reports), progress=lambda *given, **_: told.append(given))
    assert record["seconds"] == seconds
    assert record["device_seconds"] == 2 * at_work
    assert len(told) >= len(reports)
