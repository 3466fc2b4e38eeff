"""A manifest comes back as it was written, whatever version wrote it."""

import json
from dataclasses import replace

import pytest

from weakteach.artifacts.errors import StorageError
from weakteach.artifacts.store import Store
from weakteach.study.experiments import student_size, supervisor_size
from weakteach.study.grids import Choices, make_grid
from weakteach.study.manifest import (
    describe,
    make_manifest,
    manifest_text,
    read_manifest,
    study_folder,
)
from weakteach.study.presets import EMBEDDED


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    store = Store(tmp_path)
    grid = make_grid(EMBEDDED, EMBEDDED.first, Choices())
    info = describe("sizes", "Sizes", grid, store, "python sweeps/sizes.py", (10, 11), 0.5)
    manifest = make_manifest(info, [student_size(grid), supervisor_size(grid)])
    manifest = replace(manifest, failures={manifest.steps[0][1]: "why <not>"})
    store.filesystem.create_dir(study_folder(store, "sizes"), recursive=True)
    (tmp_path / "studies/sizes/study.json").write_text(manifest_text(manifest))
    assert read_manifest(store, "sizes") == manifest


def test_a_study_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(StorageError, match="no study nothing"):
        read_manifest(Store(tmp_path), "nothing")


@pytest.fixture
def stored(tmp_path):
    """A store with a study, the place of its manifest, and what it holds."""
    store = Store(tmp_path)
    grid = make_grid(EMBEDDED, EMBEDDED.first, Choices())
    manifest = make_manifest(describe("s", "S", grid, store, "command"), [student_size(grid)])
    place = tmp_path / "studies/s/study.json"
    place.parent.mkdir(parents=True)
    text = manifest_text(manifest)
    place.write_text(text)
    return store, place, json.loads(text)


def test_a_description_has_the_sizes_of_the_models(stored):
    store, _, _ = stored
    sizes = read_manifest(store, "s").info.sizes
    assert sizes["opt-45k"] < sizes["opt-230k"] < sizes["opt-1m"]


# What every manifest has had; a field that is not here needs a default.
FIRST_INFO = {
    "name", "title", "preset", "command", "storage", "started", "seconds", "steps_total",
    "steps_existing_at_start", "steps_computed",
}  # fmt: skip
FIRST_SETTING = {"domain", "weak", "teacher", "student", "fraction", "beta", "sft"}
FIRST_MEASURE = {"setting", "seed", "kind", "role", "of", "step", "fingerprint"}


def only(names, fields):
    return {name: value for name, value in fields.items() if name in names}


def test_manifests_of_earlier_and_of_later_versions_are_read(stored):
    store, place, whole = stored
    whole["info"] = only(FIRST_INFO, whole["info"])
    for number, measure in enumerate(whole["measures"]):
        measure["setting"] = only(FIRST_SETTING, measure["setting"])
        whole["measures"][number] = only(FIRST_MEASURE, measure)
    whole["info"] |= {"grid": [["teachers", "opt-45k"]], "gold": "world", "yet unknown": 1}
    whole["measures"][0]["setting"]["yet unknown"] = "x"
    place.write_text(json.dumps(whole))
    found = read_manifest(store, "s")
    assert found.info.sizes == {}
    assert len(found.measures) == len(whole["measures"])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda whole: whole["info"].pop("title"), "info.title: Field required"),
        (lambda whole: whole["measures"][1].update(seed="x"), "measures.1.seed: "),
        (lambda whole: whole["experiments"][0].update(measures=[9999]), "measure number 9999"),
        (lambda whole: whole["experiments"][0].update(measures=[-1]), "experiments.0.measures.0: "),
        (lambda whole: whole["steps"].append(["Sft"]), r"steps.\d+.1: "),
    ],
)
def test_a_damaged_manifest_is_one_sentence_with_the_place(stored, damage, sentence):
    store, place, whole = stored
    damage(whole)
    place.write_text(json.dumps(whole))
    with pytest.raises(StorageError, match=sentence) as raised:
        read_manifest(store, "s")
    assert "\n" not in str(raised.value)


def test_seeds_that_are_no_rounds_are_a_sentence(stored):
    store, place, whole = stored
    whole["info"]["rounds"] = [10, 11, 12]
    place.write_text(json.dumps(whole))
    with pytest.raises(StorageError, match="Rounds are of 2, 4, 8"):
        read_manifest(store, "s")
