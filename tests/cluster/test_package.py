"""What `ray job submit --working-dir .` would send, by Ray's own packaging."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package, get_uri_for_directory

ROOT = Path(__file__).parents[2]
LARGEST = 8 << 20  # Ray refuses more than 100 MiB, and each submission sends it


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project as its user has it: tracked files, and what work leaves beside them."""
    project = tmp_path_factory.mktemp("project")
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in filter(lambda name: (ROOT / name).is_file(), tracked):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, project / name)
    left = (
        ".git/objects/pack/pack-1.pack", ".venv/lib/python3.11/site-packages/torch/lib.so",
        "runs/Dpo/0123/model.safetensors", "runs/Dpo/0123/record.json", "build/lib/weakteach/x.py",
        "weakteach.egg-info/PKG-INFO", "weakteach/__pycache__/cli.cpython-311.pyc",
        ".mypy_cache/3.11/cache.db", ".hypothesis/examples/1", "harmless-base.jsonl.gz",
    )  # fmt: skip
    for name in left:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(b"x" * (1 << 20))
    return project


@pytest.fixture(scope="module")
def package(project, tmp_path_factory):
    target = tmp_path_factory.mktemp("package") / "package.zip"
    create_package(str(project), target, include_gitignore=True, include_parent_dir=False)
    return target


def test_the_package_is_small_and_holds_what_a_job_runs(package):
    assert package.stat().st_size < LARGEST
    names = zipfile.ZipFile(package).namelist()
    for needed in ("sweeps/size_grid.py", "weakteach/run/sweep.py", "weakteach/run/prices.toml",
                   "weakteach/models/tiny/bases/opt-45k/model.safetensors"):  # fmt: skip
        assert needed in names


def test_neither_history_nor_environment_nor_store_travels(package):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(package).namelist()}
    assert "weakteach" in tops
    assert not tops & {
        ".git", ".venv", "runs", "build", "tests", "weakteach.egg-info", ".mypy_cache",
        ".hypothesis", "harmless-base.jsonl.gz",
    }  # fmt: skip
    assert not [name for name in zipfile.ZipFile(package).namelist() if "__pycache__" in name]


def test_work_that_leaves_files_behind_does_not_change_the_package(project):
    before = get_uri_for_directory(str(project), include_gitignore=True)
    (project / "runs" / "Sft").mkdir()
    (project / "runs" / "Sft" / "record.json").write_text("{}")
    assert get_uri_for_directory(str(project), include_gitignore=True) == before
    (project / "sweeps" / "size_grid.py").write_text("changed")
    assert get_uri_for_directory(str(project), include_gitignore=True) != before
