"""A whole sweep whose trainings are groups of Ray Train's workers and whose labels, responses and
rewards come from actors that outlive a step: as on a cluster, on CPUs and on all GPUs of a host."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

ROOT = Path(__file__).parents[2]
SMALL = [
    "--data", "world:400", "--test-pairs", "32", "--weak", "opt-45k", "--student", "opt-45k",
    "--fractions", "1/2", "--seeds", "0", "--gold", "trained:opt-45k", "--set-aside-pairs", "64",
]  # fmt: skip


def sweep(storage, *options):
    run = subprocess.run(
        [sys.executable, "sweeps/size_grid.py", "--storage", str(storage), *SMALL, *options],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    results = pq.read_table(storage / "studies" / "size_grid" / "results.parquet").to_pandas()
    assert (results["status"] == "done").all()
    assert results["value"].notna().any()
    return [json.loads(path.read_text()) for path in Path(storage).glob("*/*/record.json")]


def devices_of(records, step):
    found = [record for record in records if record["step"] == step]
    return {round(record["device_seconds"] / record["seconds"]) for record in found}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workers_and_actors_of_cpus_run_a_study(tmp_path):
    records = sweep(tmp_path, "--train-workers", "2", "--label-actors", "1")
    assert devices_of(records, "Sft") == devices_of(records, "Dpo") == {2}
    assert all(record["execution"]["label_actors"] == 1 for record in records)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.timeout(1800)
def test_workers_and_actors_of_all_gpus_run_a_study(tmp_path):
    """Rates of the stages and the way to fit of each training are printed (``-s``)."""
    gpus = torch.cuda.device_count()
    workers = next(count for count in (8, 4, 2, 1) if count <= gpus)
    records = sweep(tmp_path, "--gpus", "1", "--train-workers", str(workers), "--label-actors", "1")
    assert devices_of(records, "Sft") == devices_of(records, "Dpo") == {workers}
    for record in records:
        if record["execution"]["gpus"]:
            print(record["step"], f"{record['seconds']:.1f} s", record["facts"])
