"""Several nodes on this machine, raised and used as their user does, and ended without a trace."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
JOB = """
import os
import ray
ray.init()
before = os.stat(os.getcwd())
alive = [node for node in ray.nodes() if node["Alive"]]
on_gpu = ray.remote(num_gpus=1, accelerator_type="L4")
tasks = [on_gpu(lambda: ray.get_runtime_context().get_node_id()).remote() for _ in range(2)]
where = ray.get(tasks)
# Other nodes have unpacked this folder too, and left alone the one that the driver works in.
assert os.path.samestat(before, os.stat(os.getcwd())) and os.path.exists("job.py")
import weakteach
assert set(where) <= {node["NodeID"] for node in alive}
print(f"{len(alive)} nodes, {ray.cluster_resources()['GPU']:g} GPUs, {len(where)} tasks")
print(weakteach.__file__)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def read_until(process, line: str) -> str:
    """The process's output up to that line; what it said if it ended before."""
    said = ""
    for text in process.stdout:
        said += text
        if line in text:
            return said
    raise AssertionError(said)


def test_a_taken_port_is_an_error_that_says_what_to_do():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        run = subprocess.run(
            [sys.executable, "cluster/local.py", "--port", str(taken.getsockname()[1])],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
    assert run.returncode == 2
    assert re.search(r"port \d+ is taken: give another with --port", run.stdout)


def test_its_help_needs_no_ray():
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "cluster/local.py", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "--gpu-type" in run.stdout
    assert not re.search(r"\| +ray$", run.stderr, re.M)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nodes_take_a_job_with_the_token_listen_on_loopback_and_end_on_ctrl_c(tmp_path):
    ports = free_port(), free_port()
    process = subprocess.Popen(
        [sys.executable, "cluster/local.py", "--nodes", "2", "--cpus", "1", "--gpus", "1",
         "--gpu-type", "L4", "--port", str(ports[0]), "--dashboard-port", str(ports[1])],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, env={**os.environ, "RAY_AUTH_MODE": "disabled"},
    )  # fmt: skip
    family: list[psutil.Process] = []
    try:
        said = read_until(process, "Ctrl-C here")
        family = psutil.Process(process.pid).children(recursive=True)
        exported = dict(re.findall(r"(RAY_\w+)=(\S+)", said))
        token_file = Path(exported["RAY_AUTH_TOKEN_PATH"])
        assert token_file.stat().st_mode & 0o077 == 0
        url = exported["RAY_API_SERVER_ADDRESS"]

        listening = [
            connection.laddr
            for child in family
            for connection in child.net_connections()
            if connection.status == psutil.CONN_LISTEN
        ]
        assert {port for _, port in listening} >= set(ports)
        assert {address.removeprefix("::ffff:") for address, _ in listening} == {"127.0.0.1"}

        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}/api/jobs/", timeout=30)
        assert refused.value.code == 401

        working = tmp_path / "project"
        working.mkdir()
        (working / "weakteach").symlink_to(ROOT / "weakteach")
        (working / "job.py").write_text(JOB)
        submit = [RAY, "job", "submit", "--working-dir", str(working), "--", "python", "job.py"]
        environment = {**os.environ, **exported}
        environment.pop("PYTHONPATH", None)
        run = subprocess.run(submit, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
        assert "3 nodes, 2 GPUs, 2 tasks" in run.stdout
        assert "runtime_resources/working_dir_files" in run.stdout
        token = token_file.read_text()
        assert token not in run.stdout + run.stderr + said

        environment["RAY_AUTH_TOKEN_PATH"] = str(tmp_path / "other")
        (tmp_path / "other").write_text("00" * 32)
        other = subprocess.run(submit, env=environment, capture_output=True, text=True)
        assert other.returncode != 0
        assert "AuthenticationError" in other.stderr
        assert "submitted successfully" not in other.stdout + other.stderr
    finally:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "All nodes have ended." in output
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and any(child.is_running() for child in family):
        psutil.wait_procs(family, timeout=5)
    assert [child for child in family if child.is_running()] == []
    assert not token_file.parent.exists()
