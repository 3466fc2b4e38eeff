"""Metrics of a study, read where Prometheus reads them."""

import re
import time
import urllib.request
from dataclasses import dataclass, field

from weakteach.artifacts.computing import obtain_each
from weakteach.artifacts.errors import StepError
from weakteach.artifacts.identity import EXECUTION
from weakteach.artifacts.step import Step, walk
from weakteach.artifacts.store import Store
from weakteach.run.metrics import StudyMetrics
from weakteach.run.prices import Rate


@dataclass(frozen=True)
class Part(Step):
    text: str
    fails: bool = field(default=False, compare=False, metadata=EXECUTION)

    def compute(self, workspace):
        if self.fails:
            raise StepError("it cannot be")
        (workspace.out / "text.txt").write_text(self.text)
        return {"devices": 4}


@dataclass(frozen=True)
class Join(Step):
    parts: tuple[Part, ...]

    def compute(self, workspace):
        return {}


def exported(name):
    """The series of a gauge: its own labels and value, from the node's export endpoint."""
    import ray

    port = ray.nodes()[0]["MetricsExportPort"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    series = {}
    for line in lines:
        if match := re.fullmatch(rf"ray_{name}\{{(.*)\}} (\S+)", line):
            tags = dict(re.findall(r'(\w+)="([^"]*)"', match[1]))
            own = ("study", "state", "node_type", "currency", "storage")
            key = tuple(tags[label] for label in own if label in tags)
            series[key] = float(match[2])
    return series


def test_steps_by_state_and_what_they_cost_are_exported(ray_here, tmp_path):
    store = Store(tmp_path)
    done, bad, late = Part("a"), Part("b", fails=True), Part("c")
    targets = [Join((done,)), Join((done, bad)), Join((late,)), Join((done, late))]
    steps = walk(targets)
    outcomes = obtain_each(store, targets[:2])
    failed = {s.fingerprint for s, what in outcomes.items() if isinstance(what, Exception)}
    staged = tmp_path / "Part" / f".{late.fingerprint}.abcd.stage"
    staged.mkdir()
    (staged / "file").write_bytes(bytes(1000))
    rate = Rate("p4d.24xlarge", "USD", 11.0 / 8)
    metrics = StudyMetrics("size_grid", store, steps, [rate])
    metrics.update(targets, store.existing(steps), failed)
    deadline = time.monotonic() + 60
    while not exported("weakteach_steps"):
        assert time.monotonic() < deadline, "no metrics came"
        time.sleep(0.5)
    study = "size_grid"
    assert exported("weakteach_steps") == {
        (study, "done"): 2,
        (study, "running"): 1,
        (study, "waiting"): 2,
        (study, "failed"): 2,
    }
    records = [store.record(step) for step in steps]
    seconds = sum(record["device_seconds"] for record in records if record)
    assert records[0]["device_seconds"] == 4 * records[0]["seconds"]
    hours = exported("weakteach_device_hours")[study,]
    assert abs(hours * 3600 / seconds - 1) < 1e-6
    cost = exported("weakteach_cost")[study, "p4d.24xlarge", "USD"]
    assert abs(cost / (hours * 11 / 8) - 1) < 1e-6
    size = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert exported("weakteach_store_bytes") == {(str(tmp_path),): size}
