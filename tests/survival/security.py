"""Who may do what: tokens, open ports, poisoned stores, secrets.

    python tests/survival/security.py

Raises a cluster of cluster/local.py and asks its dashboard, its job server and its Ray for things
without a token and with a wrong one. Submits a study to it as a job, and runs the same study
with a Ray of its own, both with sentinels in the variables that hold secrets (API keys and the
like); looks meanwhile where all of their processes listen, and afterwards for the sentinels and
the token in everything that was written: storage, Ray's logs and job metadata, the home folder,
what was said. Then poisons stores: pickles in place of safetensors and in a checkpoint, models that
bring code, records that name other places, markup in the texts of a report. Takes some minutes.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from weakteach.run.terminal import launch, script

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
LOOPBACK = "127.0.0.1"
STUDY = ("--data", "world:200", "--test-pairs", "20", "--student", "opt-45k", "--seeds", "0",
         "--weak", "opt-45k", "--fractions", "1/2", "--max-concurrent", "1")  # fmt: skip
SECRETS = {
    name: f"sentinel-{number}-of-a-secret"
    for number, name in enumerate(
        ("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN",
         "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "GOOGLE_API_KEY", "DATABASE_PASSWORD")
    )
}  # fmt: skip
# What a client may ask of a dashboard and its job server.
REQUESTS = (
    ("GET", "/api/jobs/"), ("POST", "/api/jobs/"), ("GET", "/api/version"),
    ("GET", "/nodes?view=summary"),
    ("GET", "/api/v0/logs"), ("GET", "/api/v0/actors"), ("GET", "/api/cluster_status"),
    ("PUT", "/api/packages/gcs/_ray_pkg_0.zip"), ("GET", "/api/serve/applications/"),
    ("GET", "/worker/traceback?pid=1"),
)  # fmt: skip
PATIENCE_SECONDS = 1800


@dataclass(frozen=True)
class Row:
    """A check, whether what must hold holds, and what was seen."""

    check: str
    holds: bool
    seen: str


def checked(name: str, check: Callable[[], str]) -> Row:
    """The row of a check, which raises for what must not be."""
    try:
        return Row(name, True, check())
    except Exception as error:
        traceback.print_exc()
        return Row(name, False, f"{type(error).__name__}: {error}")


def show(rows: Iterable[Row], title: str) -> int:
    """Print the table; how many rows do not hold."""
    rows = list(rows)
    table = Table(title=title, title_justify="left")
    table.add_column("check", max_width=40)
    table.add_column("")
    table.add_column("seen")
    for row in rows:
        mark = "[green]holds[/green]" if row.holds else "[red]FAILS[/red]"
        table.add_row(row.check, mark, escape(row.seen[:300]))
    Console().print(table)
    return sum(not row.holds for row in rows)


def listening(processes: Iterable[psutil.Process]) -> set[tuple[str, int]]:
    """Addresses and ports at which the processes listen."""
    found = set()
    for process in processes:
        try:
            connections = process.net_connections()
        except psutil.NoSuchProcess:
            continue
        for connection in connections:
            if connection.status == psutil.CONN_LISTEN:
                address, port = connection.laddr
                found.add((address.removeprefix("::ffff:"), port))
    return found


def holding(folders: Iterable[Path], secrets: Iterable[str]) -> list[str]:
    """Which secret is in which file below the folders, by the file's name."""
    found = []
    for file in (path for folder in folders for path in sorted(folder.rglob("*"))):
        if file.is_file() and not file.is_symlink():
            data = file.read_bytes()
            found += [f"{s} in {file.name}" for s in secrets if s.encode() in data]
    return found


@contextmanager
def local_cluster(folder: Path) -> Iterator[tuple[psutil.Process, dict[str, str], list[str]]]:
    """A head and a node that take tokens: their process, what a client needs, what was said."""
    ports = [str(_free_port()) for _ in range(2)]
    process = subprocess.Popen(
        [sys.executable, "cluster/local.py", "--nodes", "1", "--cpus", "3",
         "--port", ports[0], "--dashboard-port", ports[1]],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, env=environment(folder),
    )  # fmt: skip
    said: list[str] = []
    try:
        assert process.stdout
        for line in process.stdout:
            said.append(line)
            if "Ctrl-C here" in line:
                break
        exported = dict(re.findall(r"(RAY_\w+)=(\S+)", "".join(said)))
        assert exported, f"no cluster: {''.join(said)}"
        yield psutil.Process(process.pid), {**exported, "GCS": f"{LOOPBACK}:{ports[0]}"}, said
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=180)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def environment(home: Path, **more: str) -> dict[str, str]:
    """This one, with the sentinels; home and temporary files are in a folder to be searched."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    home.mkdir(exist_ok=True)
    return {
        **mine, **SECRETS, "HOME": str(home), "TMPDIR": str(home), "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "120", "HF_HUB_OFFLINE": "1", "COLUMNS": "200",
        "PYTHONPATH": str(ROOT), **more,
    }  # fmt: skip


def requests_are_refused(url: str, token: str | None) -> str:
    """Every request without the token, or with a wrong one, gets a 401 or 403."""
    for method, path in REQUESTS:
        data = b"{}" if method == "POST" else None
        request = urllib.request.Request(f"{url}{path}", method=method, data=data)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        status = _status(request)
        assert status in (401, 403), f"{method} {path}: {status}"
    return f"{len(REQUESTS)} requests, each 401 or 403"


def _status(request: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def submission_is_refused(home: Path, exported: Mapping[str, str], token: Path | None) -> str:
    """``ray job submit`` without a token, or with another."""
    mine = {k: v for k, v in exported.items() if k.startswith("RAY_")}
    if token is None:
        mine |= {"RAY_AUTH_MODE": "disabled"}
        mine.pop("RAY_AUTH_TOKEN_PATH")
    else:
        mine["RAY_AUTH_TOKEN_PATH"] = str(token)
    command = [RAY, "job", "submit", "--", "touch", str(home / "ran")]
    run = subprocess.run(command, env=environment(home, **mine), capture_output=True, text=True)
    assert run.returncode != 0, run.stdout
    assert not (home / "ran").exists()
    said = [line for line in (run.stdout + run.stderr).splitlines() if line.strip()]
    assert "uthenticat" in run.stdout + run.stderr, said[-3:]
    return said[-1]


JOIN = "import ray; ray.init(address={!r}, log_to_driver=False); print('joined')"


def joining_is_refused(home: Path, exported: Mapping[str, str], token: Path) -> str:
    """A driver that joins the cluster by its address with another token."""
    mine = environment(home, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token))
    command = [sys.executable, "-c", JOIN.format(exported["GCS"])]
    try:
        run = subprocess.run(command, env=mine, capture_output=True, text=True, timeout=240)
    except subprocess.TimeoutExpired:
        return "no answer within 240 s"
    assert "joined" not in run.stdout, "it joined"
    assert run.returncode != 0
    return (run.stderr.strip().splitlines() or [""])[-1]


def job(home: Path, exported: Mapping[str, str], storage: Path, watched: Callable[[], Any]) -> str:
    """A study as a job of the cluster; returns what was said and the job's metadata."""
    mine = environment(home, **{k: v for k, v in exported.items() if k.startswith("RAY_")})
    command = [RAY, "job", "submit", "--working-dir", str(ROOT), "--", "python",
               "sweeps/size_grid.py", "--storage", str(storage), *STUDY]  # fmt: skip
    said = watch(command, mine, home / "job.log", watched)
    token = Path(exported["RAY_AUTH_TOKEN_PATH"]).read_text()
    request = urllib.request.Request(f"{exported['RAY_API_SERVER_ADDRESS']}/api/jobs/")
    request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        (home / "jobs.json").write_bytes(answer.read())
    return said


def watch(command: list[str], mine: dict[str, str], log: Path, watched: Callable[[], Any]) -> str:
    """Run to the end, looking each second; returns what was said."""
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=mine, stdout=file, stderr=file)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while process.poll() is None:
            watched()
            assert time.monotonic() < deadline, f"{command[0]} takes too long"
            time.sleep(1)
    assert process.returncode == 0, log.read_text()[-2000:]
    return log.read_text()


def loopback_only(addresses: set[tuple[str, int]]) -> str:
    assert addresses, "nobody listens at all"
    others = {
        f"{address}:{port}" for address, port in addresses if address not in (LOOPBACK, "::1")
    }
    assert not others, f"open: {', '.join(sorted(others))}"
    return f"{len(addresses)} ports, all of them on loopback"


def no_secret(folders: list[Path], secrets: list[str]) -> str:
    found = holding(folders, secrets)
    assert not found, f"{len(found)}: {', '.join(found[:5])}"
    count = sum(path.is_file() for folder in folders for path in folder.rglob("*"))
    return f"{len(secrets)} secrets, {count:,} files"


def cluster_rows(folder: Path) -> list[Row]:
    """What a cluster with tokens refuses, and a job on it."""
    home, storage, rows = folder / "cluster", folder / "job-storage", []
    wrong = folder / "wrong_token"
    wrong.write_text("00" * 32)
    seen: set[tuple[str, int]] = set()
    with local_cluster(home) as (process, exported, said):
        url, token = exported["RAY_API_SERVER_ADDRESS"], Path(exported["RAY_AUTH_TOKEN_PATH"])
        secret = token.read_text()

        def look() -> None:
            seen.update(listening([process, *process.children(recursive=True)]))

        rows += [
            checked("dashboard and jobs, no token", lambda: requests_are_refused(url, None)),
            checked(
                "dashboard and jobs, a wrong token", lambda: requests_are_refused(url, "00" * 32)
            ),
            checked("job submit, no token", lambda: submission_is_refused(home, exported, None)),
            checked(
                "job submit, a wrong token", lambda: submission_is_refused(home, exported, wrong)
            ),
            checked("joining, a wrong token", lambda: joining_is_refused(home, exported, wrong)),
            checked(
                "a study as a job, with the token",
                lambda: job(home, exported, storage, look).strip().splitlines()[-1],
            ),
        ]
        (home / "said.log").write_text("".join(said))
        # Ray's folder goes with the cluster. The token stands there in a file of its own.
        shutil.copytree(
            token.parent, home / "ray", ignore=lambda at, names: _unread(at, names, token)
        )
    rows.append(checked("ports of the cluster", lambda: loopback_only(seen)))
    everything = [home, storage]
    rows.append(
        checked("secrets after the job", lambda: no_secret(everything, [*SECRETS.values(), secret]))
    )
    return rows


def _unread(folder: str, names: list[str], token: Path) -> list[str]:
    """What is not to be copied: the token's file, sockets, dangling links."""
    kept = (Path(folder, name) for name in names)
    return [p.name for p in kept if p == token or not (p.is_file() or p.is_dir())]


def study_rows(folder: Path) -> list[Row]:
    """A study with a Ray of its own."""
    home, storage = folder / "study", folder / "storage"
    seen: set[tuple[str, int]] = set()
    me = psutil.Process()

    def run() -> str:
        command = [sys.executable, "sweeps/size_grid.py", "--storage", str(storage), *STUDY]
        mine = environment(home)
        return watch(command, mine, home / "study.log", look).strip().splitlines()[-1]

    def look() -> None:
        seen.update(listening(me.children(recursive=True)))

    return [
        checked("a study with a Ray of its own", run),
        checked("its ports", lambda: loopback_only(seen)),
        checked("secrets after it", lambda: no_secret([home, storage], list(SECRETS.values()))),
    ]


def poison_rows(folder: Path) -> list[Row]:
    import poison_checks  # torch and transformers: slow to import

    checks: dict[str, Callable[[Path], str]] = {
        "pickles in place of safetensors": poison_checks.pickled_weights_are_not_loaded,
        "a model that brings code": poison_checks.code_of_a_model_is_not_run,
        "pickles in a checkpoint": poison_checks.pickles_in_a_checkpoint_are_not_run,
        "records that name other places": poison_checks.records_lead_nowhere_else,
    }
    rows = []
    for number, (name, check) in enumerate(checks.items()):
        place = folder / f"poison-{number}"
        place.mkdir()
        rows.append(checked(name, lambda check=check, place=place: check(place)))  # type: ignore[misc]
    storage = folder / "storage"
    rows.append(
        checked(
            "markup in texts of a report",
            lambda: poison_checks.texts_are_shown_and_not_run(storage, "size_grid"),
        )
    )
    return rows


def main(
    out: Annotated[Path, Parameter(help="JSON to write.")] = Path("security.json"),
    keep: Annotated[Path | None, Parameter(help="Folder to keep all files in.")] = None,
) -> int:
    """Check tokens, ports, secrets and poisoned stores; exit code 1 if anything does not hold."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    with tempfile.TemporaryDirectory(prefix="wt-", dir="/tmp") as name:
        folder = keep or Path(name)
        folder.mkdir(exist_ok=True)
        rows = [*study_rows(folder), *cluster_rows(folder), *poison_rows(folder)]
    failures = show(rows, "Security")
    out.write_text(json.dumps([vars(row) for row in rows], indent=1))
    return 1 if failures else 0


if __name__ == "__main__":
    launch(script(main))
