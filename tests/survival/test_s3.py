"""A store on a bad bucket, a full disk, a disk that may only be read, and with a clock that jumps.

``s3.py`` does the same, longer, and with a whole study.
"""

import logging

import pytest
import storage_checks
from faulty_server import faulty_bucket
from storage_checks import alone

from weakteach.artifacts.errors import StorageError
from weakteach.artifacts.store import Store

logging.getLogger("werkzeug").setLevel(logging.ERROR)


@pytest.fixture
def credentials(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("WEAKTEACH_CACHE", str(tmp_path / "cache"))


def test_artifacts_are_whole_through_a_bucket_that_fails(credentials):
    with faulty_bucket(seed=3, rate=0.1) as proxy:
        storage_checks.faults_are_ridden_out(proxy, 2)


@pytest.mark.slow
def test_faults_without_number_are_ridden_out_by_one_process(credentials, monkeypatch):
    monkeypatch.setattr("faulty_server.FAULTS", ("500", "503"))
    with faulty_bucket(seed=1) as proxy:
        store = Store(proxy.storage("many"), alone)
        store.check_writable()
        proxy.rate = 0.4
        while proxy.counts["500"] + proxy.counts["503"] < 150:
            store.filesystem.get_file_info(f"{store.root}/nothing")


def test_a_bucket_that_is_down_is_an_error_and_goes_on_when_it_is_up(credentials, monkeypatch):
    monkeypatch.setattr("weakteach.artifacts.storage.ATTEMPTS", 3)
    with faulty_bucket() as proxy:
        storage_checks.an_outage_is_an_error_and_then_over(proxy)


def test_a_bucket_that_may_only_be_read_can_be(credentials):
    with faulty_bucket() as proxy:
        storage_checks.a_store_that_may_only_be_read_can_be(proxy)


def test_a_full_disk_is_an_error_and_goes_on_when_there_is_room(tmp_path):
    storage_checks.a_full_disk_is_an_error_and_then_over(tmp_path / "disk")


def test_a_folder_that_may_only_be_read_can_be(tmp_path):
    storage_checks.a_folder_that_may_only_be_read_can_be(tmp_path / "disk")


@pytest.mark.slow
def test_clocks_that_differ_by_a_day_take_no_lease(tmp_path):
    storage_checks.a_clock_that_is_off_takes_no_lease(tmp_path / "clocks")


def test_a_clock_that_jumps_leaves_durations_alone(tmp_path):
    storage_checks.a_clock_that_jumps_leaves_durations(tmp_path / "clock")


@pytest.mark.parametrize(
    "url",
    [
        "s3://KEYID:SENTINEL@bucket/x?region=us-east-1",
        "s3://bucket/x?access_key=KEYID&secret_key=SENTINEL&region=us-east-1",
        "abfs://KEYID:SENTINEL@account.dfs.core.windows.net/x",
        "abfss://:SENTINEL@account.dfs.core.windows.net/box/x",
        "abfs://account.dfs.core.windows.net/box/x?client_id=KEYID&client_secret=SENTINEL",
        "abfs://account.dfs.core.windows.net/box/x?sv=2024-11-04&sig=SENTINEL",
    ],
)
def test_a_url_with_a_secret_is_refused_and_not_repeated(url):
    with pytest.raises(StorageError, match="environment variables") as refused:
        Store(url).check_writable()
    assert "SENTINEL" not in str(refused.value)
    assert "KEYID" not in str(refused.value)
