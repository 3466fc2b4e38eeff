"""Whole sweeps with labels and verdicts of a chat model behind a real server on loopback."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from chat_servers import tiny_chat_model, transformers_server

ROOT = Path(__file__).parents[2]
SMALL = [
    "--data", "world:64", "--test-pairs", "8", "--weak", "opt-45k", "--student", "opt-45k",
    "--students", "opt-45k", "--fractions", "1/2", "--seeds", "0", "--gold", "own",
]  # fmt: skip


def sweep(name, storage, *options):
    run = subprocess.run(
        [sys.executable, f"sweeps/{name}.py", "--storage", str(storage), *SMALL, *options],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr
    results = pq.read_table(storage / "studies" / name / "results.parquet").to_pandas()
    assert (results["status"] == "done").all()
    return results


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_student_learns_from_labels_of_a_prompted_model(tmp_path):
    folder = tiny_chat_model(tmp_path / "model")
    with transformers_server(folder) as url:
        results = sweep(
            "supervisor_size", tmp_path / "store",
            "--endpoint", url, "--annotator-model", str(folder),
        )  # fmt: skip
    prompted = results[results["role"].str.contains("prompted")]
    assert prompted["value"].notna().any()
    assert list((tmp_path / "store").glob("PromptedLabels/[0-9a-f]*/answers.parquet"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_chat_model_judges_the_students(tmp_path):
    """By naming the better response, which is all that this model can say."""
    folder = tiny_chat_model(tmp_path / "model")
    with transformers_server(folder) as url:
        results = sweep(
            "judge", tmp_path / "store",
            "--endpoint", url, "--judge-model", str(folder), "--judge-style", "choice",
        )  # fmt: skip
    rates = results[results["measure"].str.contains("win_rate")]
    assert rates["value"].between(0, 1).all()
    (verdicts, *_) = (tmp_path / "store").glob("*Verdicts/[0-9a-f]*/verdicts.parquet")
    assert pq.read_table(verdicts)["verdict"].null_count == 0
