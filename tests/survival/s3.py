"""A store, a study and its resumption on a bucket that fails, and stores on bad disks and clocks.

    python tests/survival/s3.py
    python tests/survival/s3.py --rate 0.1 --seed 3
    python tests/survival/s3.py --no-study

A real S3 server (moto) on loopback stands behind a proxy that answers a share of the requests with
500 or 503, late, or with a connection that is cut: before the server has the request, after, within
the answer, or within what is sent. Through it runs the size grid at its smallest; its driver and
all its workers are killed on the way, and it is submitted again. In the end the bucket must hold
the very files that a run on a local folder makes, and an equal results.parquet.

Besides: an outage that outlasts all attempts; stores that may only be read; a full disk; clocks
that differ by a day, and one that jumps. Takes some minutes.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import storage_checks
from cyclopts import Parameter
from cyclopts.validators import Number
from faulty_server import FaultyProxy, faulty_bucket, names, objects
from security import Row, checked, show

from weakteach.artifacts.store import RECORD
from weakteach.run.terminal import launch, script

ROOT = Path(__file__).parents[2]
STUDY = ("--data", "world:300", "--test-pairs", "40", "--student", "opt-45k", "--seeds", "0",
         "--weak", "opt-45k", "--fractions", "1/2", "--max-concurrent", "1")  # fmt: skip
PATIENCE_SECONDS = 3600
# Artifacts that are new in the bucket when a run is killed.
ARTIFACTS_OF_A_TRY = 3
RESULTS = "studies/size_grid/results.parquet"
NO_STEPS = ("studies/", ".tune/", ".leases/")


def sweep(storage: str, log: Path, kill: Callable[[], bool] | None = None) -> int:
    """Run the study, killing it with all its workers once ``kill`` says so; its exit code."""
    command = [sys.executable, "sweeps/size_grid.py", "--storage", storage, *STUDY]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "HF_HUB_OFFLINE": "1",
                   "COLUMNS": "200", "PYTHONPATH": str(ROOT)}  # fmt: skip
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            while process.poll() is None and not (kill and kill()):
                assert time.monotonic() < deadline, f"no end: {log.read_text()[-500:]}"
                time.sleep(0.5)
        finally:
            if process.poll() is None:
                family = psutil.Process(process.pid).children(recursive=True)
                process.kill()
                for member in family:
                    if member.is_running():
                        member.send_signal(signal.SIGKILL)
        return process.wait()


def artifacts(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files of artifacts but their records, which tell times and hosts."""
    return {
        name: data
        for name, data in files.items()
        if not name.startswith(NO_STEPS) and not name.endswith(f"/{RECORD}")
    }


def local_files(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def records(files: set[str]) -> set[str]:
    return {name for name in files if name.endswith(f"/{RECORD}")}


def study_rows(proxy: FaultyProxy, folder: Path, kills: int) -> list[Row]:
    """The study on a folder, and on the bucket with faults and kills."""
    calm, storage = folder / "calm", proxy.storage("study")

    def undisturbed() -> str:
        code = sweep(str(calm), folder / "calm.log")
        assert code == 0, (folder / "calm.log").read_text()[-1500:]
        return f"{len(records(set(local_files(calm))))} artifacts"

    def disturbed() -> str:
        for number in range(1, kills + 1):
            wanted = len(records(names(proxy, "study"))) + ARTIFACTS_OF_A_TRY
            log = folder / f"killed-{number}.log"
            code = sweep(
                storage,
                log,
                lambda wanted=wanted: len(records(names(proxy, "study"))) >= wanted,  # type: ignore[misc]
            )
            assert code == -signal.SIGKILL, log.read_text()[-1500:]
            committed_are_whole()
        code = sweep(storage, folder / "study.log")
        assert code == 0, (folder / "study.log").read_text()[-1500:]
        met = sum(count for kind, count in proxy.counts.items() if kind != "requests")
        assert met or not proxy.rate, "no fault was met"
        return f"{kills} kills, {met} faults in {proxy.counts['requests']:,} requests"

    def committed_are_whole() -> str:
        whole, theirs = artifacts(local_files(calm)), objects(proxy, "study")
        committed = {name.removesuffix(RECORD) for name in records(set(theirs))}
        assert committed, "no artifact at all"
        for place in committed:
            wanted = {n for n in whole if n.startswith(place)}
            found = {n for n in artifacts(theirs) if n.startswith(place)}
            assert found == wanted, f"{place}: {sorted(found ^ wanted)}"
            other = [name for name in sorted(wanted) if theirs[name] != whole[name]]
            assert not other, f"{other[0]} differs"
        return f"{len(committed)} artifacts, file by file those of the folder"

    def results() -> str:
        mine = pq.read_table(calm / RESULTS)
        theirs = pq.read_table(pa.BufferReader(objects(proxy, "study")[RESULTS]))
        assert mine.equals(theirs), "results.parquet differs"
        assert records(set(local_files(calm))) == records(names(proxy, "study"))
        return f"{len(mine)} rows, equal"

    def nothing_left() -> str:
        left = [n for n in names(proxy, "study") if ".stage/" in n or ".scratch/" in n]
        assert not left, f"{len(left)} left behind, such as {left[0]}"
        return "no stage, no scratch"

    def again() -> str:
        code, said = sweep(storage, folder / "again.log"), (folder / "again.log").read_text()
        assert code == 0, said[-1500:]
        assert "\n0 steps computed" in said, said[-1500:]
        return "0 steps computed"

    return [
        checked("the study on a folder", undisturbed),
        checked("the study on the bucket", disturbed),
        checked("its artifacts", committed_are_whole),
        checked("its results", results),
        checked("what is left behind", nothing_left),
        checked("the study once more", again),
    ]


def main(
    rate: Annotated[
        float, Parameter(help="Share of faulty replies.", validator=Number(gte=0, lte=0.3))
    ] = 0.05,
    kills: Annotated[
        int, Parameter(help="Kills of the study on its way.", validator=Number(gte=0))
    ] = 2,
    seed: Annotated[int, Parameter(help="Of the faults.", validator=Number(gte=0))] = 0,
    study: Annotated[
        bool, Parameter(help="Run the study, or the rest alone.", negative="--no-study")
    ] = True,
    out: Annotated[Path, Parameter(help="JSON to write.")] = Path("s3.json"),
) -> int:
    """Stores on bad buckets, disks and clocks; exit code 1 if anything does not hold."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test")
    with tempfile.TemporaryDirectory(prefix="wt-") as name:
        folder = Path(name)
        os.environ["WEAKTEACH_CACHE"] = str(folder / "cache")
        full = storage_checks.a_full_disk_is_an_error_and_then_over
        read_only = storage_checks.a_folder_that_may_only_be_read_can_be
        apart = storage_checks.a_clock_that_is_off_takes_no_lease
        jumps = storage_checks.a_clock_that_jumps_leaves_durations
        rows = [
            checked("a full disk", lambda: full(folder / "full")),
            checked("a disk that may only be read", lambda: read_only(folder / "read")),
            checked("clocks a day apart", lambda: apart(folder / "apart")),
            checked("a clock that jumps", lambda: jumps(folder / "jumps")),
        ]
        down = storage_checks.an_outage_is_an_error_and_then_over
        not_written = storage_checks.a_store_that_may_only_be_read_can_be
        with faulty_bucket() as calm:
            rows += [
                checked("a bucket that is down", lambda: down(calm)),
                checked("a bucket that may only be read", lambda: not_written(calm)),
            ]
        ridden_out = storage_checks.faults_are_ridden_out
        with faulty_bucket(seed, 3 * rate) as proxy:
            rows.append(checked("artifacts, 3 x the faults", lambda: ridden_out(proxy, 4)))
        if study:
            with faulty_bucket(seed, rate) as proxy:
                rows += study_rows(proxy, folder, kills)
        failures = show(rows, f"Storage: {rate:.0%} of replies faulty, seed {seed}")
    out.write_text(json.dumps([vars(row) for row in rows], indent=1))
    return 1 if failures else 0


if __name__ == "__main__":
    launch(script(main))
