"""A manifest comes back as it was written."""

from dataclasses import replace

import pytest

from weakteach.artifacts.errors import StorageError
from weakteach.artifacts.store import Store
from weakteach.run.sweep import describe
from weakteach.study.experiments import student_size, supervisor_size
from weakteach.study.grids import Choices, make_grid
from weakteach.study.manifest import make_manifest, manifest_text, read_manifest, study_folder
from weakteach.study.presets import EMBEDDED


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    store = Store(tmp_path)
    grid = make_grid(EMBEDDED, EMBEDDED.first, Choices())
    info = describe("sizes", "Sizes", grid, store, "python sweeps/sizes.py")
    manifest = make_manifest(info, [student_size(grid), supervisor_size(grid)])
    manifest = replace(manifest, failures={manifest.steps[0][1]: "why <not>"})
    store.filesystem.create_dir(study_folder(store, "sizes"), recursive=True)
    (tmp_path / "studies/sizes/study.json").write_text(manifest_text(manifest))
    assert read_manifest(store, "sizes") == manifest


def test_a_study_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(StorageError, match="no study nothing"):
        read_manifest(Store(tmp_path), "nothing")
