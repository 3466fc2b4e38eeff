"""Folders, data sets of the hub and embedded domains as sources of pairs."""

from pathlib import Path

import pytest
from written import EXPECTED, FORMS, labeled, reasons, write_csv, write_jsonl, write_parquet

from weakteach.artifacts.identity import jsonable
from weakteach.preferences.pair import (
    DataError,
    canonical_pair,
)
from weakteach.preferences.sources import (
    HubSource,
    WorldSource,
    hub_source,
)
from weakteach.worlds.domains import POSTS, WORLD
from weakteach.worlds.noise import BradleyTerry, UniformFlip

# Data sets


@pytest.mark.parametrize("form", ["own", "explicit", "implicit", "implicit messages"])
@pytest.mark.parametrize("file_name", ["train.jsonl", "train-00000-of-00001.parquet", "train.csv"])
def test_a_folder_gives_the_same_pairs_as_its_file(form, file_name, tmp_path):
    writer = {".jsonl": write_jsonl, ".parquet": write_parquet, ".csv": write_csv}
    folder = tmp_path / "mine"
    folder.mkdir()
    writer[Path(file_name).suffix](folder / file_name, [FORMS[form]] * 3)
    source = hub_source(str(folder))
    rows = list(source.read())
    assert source.name == "mine:train"
    assert [row.place for row in rows] == [f"mine:train:{n}" for n in (1, 2, 3)]
    assert [labeled(row) for row in rows] == [EXPECTED] * 3


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine").mkdir()
    write_jsonl(tmp_path / "mine/train.jsonl", [FORMS["explicit"], {**FORMS["own"], "choice": 2}])
    write_jsonl(tmp_path / "mine/test.jsonl", [FORMS["explicit"]])
    return tmp_path / "mine"


def test_a_split_of_a_folder(folder):
    assert reasons(hub_source(str(folder), "test").read()) == [None]
    # The table of a data set has the columns of both forms, and nulls.
    assert reasons(hub_source(str(folder), "train").read()) == [None, None]
    with pytest.raises(DataError, match=r"no split 'nope'; there are"):
        list(hub_source(str(folder), "nope").read())


def test_a_folder_is_its_files_and_not_its_path(folder, tmp_path):
    source = hub_source(str(folder))
    moved = folder.rename(tmp_path / "moved")
    (moved / ".hidden").write_text("no data")
    assert hub_source(str(moved)) == source
    assert jsonable(hub_source(str(moved))) == jsonable(source)
    assert hub_source(str(moved), "test") != source
    with pytest.raises(DataError, match="no such folder on this host"):
        list(source.read())
    (moved / "train.jsonl").rename(moved / "train-2.jsonl")
    assert hub_source(str(moved)) != source


def test_a_folder_that_changes_is_no_longer_the_source(folder):
    source = hub_source(str(folder))
    write_jsonl(folder / "train.jsonl", [FORMS["own"]])
    with pytest.raises(DataError, match="has changed"):
        list(source.read())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"prompt": "p", "good": "a", "bad": "b"}\n', "columns are 'prompt', 'good', 'bad'"),
        ('{"prompt": "p", "chosen": "a", "rejected": "b"}\nnot json\n', "name the file itself"),
        ("", "cannot be read"),
    ],
)
def test_a_folder_that_cannot_be_read_is_an_error(content, sentence, tmp_path):
    (tmp_path / "train.jsonl").write_text(content)
    with pytest.raises(DataError, match=sentence):
        list(hub_source(str(tmp_path)).read())


def test_what_is_no_data_set_is_an_error(folder):
    with pytest.raises(DataError, match="a file and has no splits; give its name alone"):
        hub_source(str(folder / "train.jsonl"))
    with pytest.raises(DataError, match="has no revision"):
        hub_source(str(folder), revision="main")
    with pytest.raises(DataError, match="neither a folder here nor an id"):
        hub_source("./no/such/folder")


def test_a_hub_data_set_is_its_revision_and_needs_no_network_to_be_named():
    commit = "0123456789abcdef" * 2 + "01234567"
    source = hub_source("someone/pairs", revision=commit)
    assert source == HubSource("someone/pairs", commit)
    assert source.name == "someone/pairs:train"
    assert source != hub_source("someone/pairs", revision="f" * 40)


def test_a_branch_of_the_hub_is_resolved_to_its_commit_and_read_from_its_snapshot(
    folder, monkeypatch
):
    import huggingface_hub

    class Info:
        sha = "a" * 40

    asked = []

    def dataset_info(self, dataset, revision=None, timeout=None):
        asked.append((dataset, revision))
        return Info()

    def snapshot_download(dataset, repo_type, revision):
        asked.append((dataset, repo_type, revision))
        return str(folder)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    source = hub_source("someone/pairs", "test", revision="main")
    (row,) = source.read()
    assert row.place == "someone/pairs:test:1"
    assert labeled(row) == EXPECTED
    assert asked == [("someone/pairs", "main"), ("someone/pairs", "dataset", "a" * 40)]


def test_an_unreachable_hub_is_an_error_with_a_remedy(monkeypatch):
    import huggingface_hub

    def unreachable(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(DataError, match=r"could not be reached.*no route.*full commit hash"):
        hub_source("someone/pairs")
    with pytest.raises(DataError, match=r"cannot be downloaded.*HF_HUB_OFFLINE"):
        list(hub_source("someone/pairs", revision="a" * 40).read())


def test_offline_an_unresolved_revision_is_an_error_with_a_remedy(monkeypatch):
    from huggingface_hub import HfApi, errors

    def offline(*args, **kwargs):
        raise errors.OfflineModeIsEnabled("offline")

    monkeypatch.setattr(HfApi, "dataset_info", offline)
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set"):
        hub_source("someone/pairs")


# The embedded domains


@pytest.mark.parametrize("domain", [WORLD, POSTS], ids=str)
def test_a_domain_gives_the_same_comparisons_every_time(domain):
    source = WorldSource(50, seed=3, domain=domain)
    rows = list(source.read())
    assert rows == list(source.read())
    assert rows == list(WorldSource(80, seed=3, domain=domain).read())[:50]
    name = f"{domain.name}:3"
    assert [row.place for row in rows] == [f"{name}:{index}" for index in range(50)]
    assert source.name == name
    assert rows != list(WorldSource(50, seed=4, domain=domain).read())


def test_domains_are_different_sources_in_steps():
    assert jsonable(WorldSource(5)) == {"class": "WorldSource", "pairs": 5}
    known = {"class": "WorldSource", "pairs": 5, "domain": {"class": "Posts"}}
    assert jsonable(WorldSource(5, domain=POSTS)) == known


@pytest.mark.parametrize("domain", [WORLD, POSTS], ids=str)
def test_the_choice_of_a_pair_hangs_on_its_texts_alone(domain):
    for row in WorldSource(50, domain=domain).read():
        pair, choice = canonical_pair(row)
        assert (row.first, row.second) == (pair.response_1, pair.response_2)
        assert choice == row.preferred


@pytest.mark.parametrize("domain", [WORLD, POSTS], ids=str)
@pytest.mark.parametrize(
    ("noise", "low", "high"),
    [
        (UniformFlip(0.0), 1.0, 1.0),
        (UniformFlip(0.28), 0.69, 0.75),
        (BradleyTerry(0.1), 0.95, 1.0),
        (None, 0.69, 0.76),
    ],
)
def test_choices_agree_with_the_gold_reward_as_the_noise_says(domain, noise, low, high):
    agreed = []
    for row in WorldSource(3000, noise=noise, domain=domain).read():
        gold_1, gold_2 = (domain.gold(row.prompt, t).reward for t in (row.first, row.second))
        if gold_1 != gold_2:
            agreed.append((row.preferred == 1) == (gold_1 > gold_2))
    assert low <= sum(agreed) / len(agreed) <= high


def test_an_empty_domain_is_an_error():
    with pytest.raises(DataError, match="at least one"):
        WorldSource(0)
