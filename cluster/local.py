"""Several Ray nodes on this machine, for trying a cluster out: python cluster/local.py --nodes 2

Nodes are processes of one machine, each with CPUs and GPUs of its own in Ray's eyes. All of them
listen on loopback alone and refuse who has no token. Ctrl-C (or SIGTERM) ends them all.
"""

import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import Parameter
from cyclopts.validators import Number

from weakteach.run.terminal import EXIT_FAILED, EXIT_USAGE, launch, script

LOOPBACK = "127.0.0.1"
SECONDS_TO_START = 120.0


def main(
    nodes: Annotated[int, Parameter(help="Nodes besides the head.", validator=Number(gte=0))] = 2,
    cpus: Annotated[
        int, Parameter(help="CPUs that each node has in Ray's eyes.", validator=Number(gte=1))
    ] = 4,
    gpus: Annotated[
        int, Parameter(help="GPUs of each node besides the head.", validator=Number(gte=0))
    ] = 0,
    gpu_type: Annotated[str, Parameter(help="What they are called, such as L4.")] = "",
    port: Annotated[int, Parameter(help="Port of the head.")] = 6379,
    dashboard_port: Annotated[int, Parameter(help="Port of the dashboard and of jobs.")] = 8265,
) -> int:
    """Raise a head and more Ray nodes on this machine, until Ctrl-C."""
    for wanted in (port, dashboard_port):
        if not free(wanted):
            say(f"Error: port {wanted} is taken: give another with --port and --dashboard-port")
            return EXIT_USAGE
    signal.signal(signal.SIGTERM, interrupt)
    # Short: paths of sockets below it may not exceed 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="wt-ray-", dir="/tmp"))
    try:
        token = folder / "auth_token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        os.environ.pop("RAY_AUTH_TOKEN", None)
        os.environ.update(
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN_PATH=str(token),
            RAY_TMPDIR=str(folder),
            RAY_USAGE_STATS_ENABLED="0",
            RAY_raylet_start_wait_time_s=f"{SECONDS_TO_START:.0f}",  # for a busy machine
            # A job's `python` is this one, whether or not its environment is activated.
            PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            # With this, Ray takes 127.0.0.1 for the address of a node on Linux too.
            RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
        )
        # Reads the environment above when it is imported, and takes seconds.
        from ray.cluster_utils import Cluster

        cluster = Cluster()
        try:
            say(f"Starting {nodes + 1} Ray nodes …")
            agent = free_port()
            cluster.add_node(
                num_cpus=cpus,
                dashboard_agent_listen_port=agent,
                gcs_server_port=port,
                include_dashboard=True,
                dashboard_host=LOOPBACK,
                dashboard_port=dashboard_port,
            )
            resources: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus}
            if gpu_type:
                resources["resources"] = {f"accelerator_type:{gpu_type}": 1}
            for number in range(1, nodes + 1):
                # A folder of its own, as on a machine of its own: Ray unpacks a job's working
                # directory for each node anew, under whoever works in one that is shared.
                cluster.add_node(temp_dir=str(folder / str(number)), **resources)
            wait_for_agent(f"http://{LOOPBACK}:{agent}/api/local_raylet_healthz")
            signal.signal(signal.SIGTERM, interrupt)  # Ray put its own handler in its place
            say("They are up. In another terminal:\n")
            say(f"export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={token}")
            say(f"export RAY_API_SERVER_ADDRESS=http://{LOOPBACK}:{dashboard_port}")
            say("ray job submit --working-dir . -- python sweeps/size_grid.py --storage FOLDER\n")
            say("Ctrl-C here ends all nodes.")
            while True:
                signal.pause()
        except KeyboardInterrupt:
            say("Ending the nodes …")
        except Exception as error:  # Ray raises bare ones, mostly for want of time or memory
            say(f"Error: the Ray nodes cannot be started: {error}")
            return EXIT_FAILED
        finally:
            cluster.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    say("All nodes have ended.")
    return 0


def interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


def wait_for_agent(url: str) -> None:
    """Wait until the head's agent, which starts jobs, answers. Raises TimeoutError."""
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(f"no answer of the head's agent within {SECONDS_TO_START:g} seconds")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    launch(script(main))
