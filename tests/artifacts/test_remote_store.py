"""The store on an object store: a real S3 server on loopback, reached through pyarrow."""

import math
import os
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from filelock import SoftFileLease
from moto.server import ThreadedMotoServer
from pyarrow import fs

from weakteach.artifacts.computing import obtain
from weakteach.artifacts.errors import StepError, StorageError
from weakteach.artifacts.step import Step
from weakteach.artifacts.store import LEASE_SECONDS, Store
from weakteach.run.leases import KEEPER, NAMESPACE, LeaseKeeper, ray_lease


@dataclass(frozen=True)
class Write(Step):
    text: str
    log: str

    def compute(self, workspace):
        with open(self.log, "a") as file:
            file.write(f"{self.text}\n")
        (workspace.out / "deep").mkdir()
        (workspace.out / "deep" / "text.txt").write_text(self.text)
        with workspace.store.filesystem.open_output_stream(f"{workspace.stage}/far.txt") as file:
            file.write(self.text.encode())
        return {"rows": 1}


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """The URL of an empty bucket."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("WEAKTEACH_CACHE", str(tmp_path / "cache"))
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(
        Bucket="weakteach"
    )
    yield f"s3://weakteach/studies?endpoint_override={host}%3A{port}&scheme=http&region=us-east-1"
    server.stop()


def no_lease(key, wait):
    return nullcontext()


def test_an_artifact_on_s3_is_committed_read_back_and_computed_once(bucket, tmp_path):
    store, step = Store(bucket, no_lease), Write("a", str(tmp_path / "log"))
    store.check_writable()
    assert store.existing([step]) == set()
    record = obtain(store, step)
    assert obtain(Store(bucket, no_lease), step) == record
    assert store.existing([step]) == {step.fingerprint}
    assert store.find(step.fingerprint[:9]) == record
    folder = store.local(step)
    assert (folder / "deep" / "text.txt").read_text() == "a"
    assert (folder / "far.txt").read_text() == "a"
    assert (tmp_path / "log").read_text() == "a\n"
    assert store.local(step) == folder
    assert Store(store.url_of(store.path(step))).root == store.path(step)


def test_half_written_files_on_s3_are_no_artifact_and_are_swept(bucket, tmp_path):
    store, step = Store(bucket, no_lease), Write("a", str(tmp_path / "log"))
    with store.filesystem.open_output_stream(f"{store.path(step)}/leftover.txt") as file:
        file.write(b"half")
    assert store.existing([step]) == set()
    obtain(store, step)
    assert not (store.local(step) / "leftover.txt").exists()


@dataclass(frozen=True)
class Count(Step):
    """Tells how many times it was computed, however often the store forgot it."""

    log: str

    def compute(self, workspace):
        with open(self.log, "a") as file:
            file.write("x")
        (workspace.out / "count.txt").write_text(Path(self.log).read_text())
        return {}


def test_a_copy_of_an_artifact_that_was_deleted_and_computed_anew_is_fetched_again(
    bucket, tmp_path
):
    store, step = Store(bucket, no_lease), Count(str(tmp_path / "log"))
    obtain(store, step)
    assert (store.local(step) / "count.txt").read_text() == "x"
    store.delete(store.path(step))
    with pytest.raises(StepError, match="no artifact"):
        store.local(step)
    obtain(store, step)
    assert (store.local(step) / "count.txt").read_text() == "xx"


@pytest.fixture
def meanwhile(bucket, tmp_path, monkeypatch):
    """A store with an artifact, and a way to have something done to it when it is first copied."""
    store, step = Store(bucket, no_lease), Count(str(tmp_path / "log"))
    obtain(store, step)
    copy = fs.copy_files

    def have_done(change, after):
        changes = [change]

        def copy_and_change(*args, **named):
            first = changes.pop() if changes else None
            if first and not after:
                first()
            copy(*args, **named)
            if first and after:
                first()

        monkeypatch.setattr(fs, "copy_files", copy_and_change)

    return store, step, have_done


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_artifact_that_is_replaced_while_it_is_copied_is_copied_again(meanwhile, after):
    store, step, have_done = meanwhile

    def replace_it():
        store.delete(store.path(step))
        obtain(store, step)

    have_done(replace_it, after)
    assert (store.local(step) / "count.txt").read_text() == "xx"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_artifact_that_is_deleted_while_it_is_copied_is_none(meanwhile, after):
    store, step, have_done = meanwhile
    have_done(lambda: store.delete(store.path(step)), after)
    with pytest.raises(StepError, match="has no artifact"):
        store.local(step)


@pytest.fixture
def fetched(bucket, tmp_path, monkeypatch):
    """Three artifacts of some 200 kB on a bucket, and a way to fetch one of them that says
    which are here then. Room is made for two."""
    store = Store(bucket, no_lease)
    steps = [Write(letter * 50_000, str(tmp_path / "log")) for letter in "abc"]
    for step in steps:
        obtain(store, step)
    monkeypatch.setenv("WEAKTEACH_CACHE_BYTES", "500000")

    def fetch(number, hours_ago=0):
        folder = store.local(steps[number])
        then = time.time() - 3600 * hours_ago
        os.utime(folder, (then, then))
        copies = (tmp_path / "cache" / "copies").glob("*/Write/*")
        names = {path.name.split("-")[0] for path in copies if path.is_dir()}
        return folder, "".join(step.text[0] for step in steps if step.fingerprint in names)

    return fetch


def test_the_copy_that_was_used_the_longest_ago_makes_room(fetched):
    assert fetched(0, hours_ago=2)[1] == "a"
    assert fetched(1, hours_ago=3)[1] == "ab"
    assert fetched(2, hours_ago=4)[1] == "ac"
    assert fetched(0, hours_ago=5)[1] == "ac"
    assert fetched(1)[1] == "bc"


def test_a_copy_that_was_used_within_the_hour_stays_though_the_bound_is_passed(fetched):
    assert fetched(0, hours_ago=2)[1] == "a"
    assert fetched(1)[1] == "ab"
    assert fetched(0)[1] == "ab"
    assert fetched(2)[1] == "abc"


def test_a_copy_that_a_process_is_asking_for_stays(fetched):
    old, _ = fetched(0, hours_ago=2)
    fetched(1, hours_ago=3)
    with SoftFileLease(f"{fetched(1, hours_ago=3)[0]}.lease", lease_duration=15.0):
        assert fetched(2)[1] == "bc"
    assert not old.exists()


def test_what_a_killed_fetch_left_makes_room_and_is_no_copy(fetched):
    folder, _ = fetched(0, hours_ago=2)
    folder.rename(f"{folder}.partial")
    assert fetched(1)[1] == "ab"
    assert fetched(2)[1] == "bc"
    assert (fetched(0)[0] / "far.txt").read_text() == "a" * 50_000


def test_a_bound_that_is_no_number_of_bytes_is_named(fetched, monkeypatch):
    monkeypatch.setenv("WEAKTEACH_CACHE_BYTES", "10 GB")
    with pytest.raises(StorageError, match="WEAKTEACH_CACHE_BYTES is '10 GB'"):
        fetched(0)


@pytest.mark.parametrize("scheme", ["abfs", "abfss"])
def test_the_url_of_a_container_of_azure_holds_no_user(scheme):
    """As cluster/azure-account.sh says what to give."""
    store = Store(f"{scheme}://weakteach@account.dfs.core.windows.net/weakteach")
    assert (store.root, store.is_local) == ("weakteach/weakteach", False)


def test_an_object_store_without_leases_is_refused(bucket, tmp_path):
    with pytest.raises(StorageError, match="needs leases"):
        obtain(Store(bucket), Write("a", str(tmp_path / "log")))


def test_the_keeper_gives_a_key_to_one_holder_until_it_runs_out_or_is_released():
    keeper = LeaseKeeper()
    assert keeper.claim("k", "one", 0.2)
    assert keeper.claim("k", "one", 0.2)
    assert not keeper.claim("k", "two", 5)
    deadline = time.monotonic() + 5
    while not keeper.claim("k", "two", 5):
        assert time.monotonic() < deadline
    keeper.release("k", "one")
    assert not keeper.claim("k", "one", 5)
    keeper.release("k", "two")
    assert keeper.claim("k", "one", 5)


def test_a_step_is_kept_from_others_of_its_storage_alone(ray_here, bucket):
    from filelock import Timeout

    path, mark, options = bucket.partition("?")
    with Store(bucket, ray_lease).lease("Write", "a", wait=0):
        with (
            pytest.raises(Timeout),
            Store(f"{path}/{mark}{options}", ray_lease).lease("Write", "a", wait=0),
        ):
            pass
        elsewhere = Store(f"{path}-of-another{mark}{options}", ray_lease)
        with elsewhere.lease("Write", "a", wait=0):
            pass


AZURE = "abfs://box@account.dfs.core.windows.net/x"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("s3://bucket/x?region=us-east-1", "s3://bucket/x/?scheme=https&region=us-east-1", True),
        (
            "s3://bucket/x?endpoint_override=h%3A1&region=a",
            "s3://bucket/x?region=b&endpoint_override=h:1&scheme=http",
            True,
        ),
        ("s3://bucket/x?region=a", "s3://bucket/x?region=a&endpoint_override=h:1", False),
        ("s3://bucket/x?region=a", "s3://bucket/y?region=a", False),
        (AZURE, "abfss://account.dfs.core.windows.net/box/x/?enable_tls=true", True),
        (AZURE, AZURE.replace("account", "another"), False),
    ],
)
def test_the_forms_of_a_url_of_one_storage_have_one_lease(one, other, same):
    keys = set()

    def lease(key, wait):
        keys.add(key)
        return nullcontext()

    for url in (one, other):
        with Store(url, lease).lease("Write", "a", wait=0):
            pass
    assert (len(keys) == 1) == same


def test_leases_of_a_cluster_let_one_in_at_a_time_and_expire(ray_here):
    from filelock import Timeout

    with ray_lease("key", wait=0), pytest.raises(Timeout), ray_lease("key", wait=0):
        pass
    import ray

    keeper = ray.get_actor(KEEPER, namespace=NAMESPACE)
    assert ray.get(keeper.claim.remote("gone", "a holder that died", 0.5))
    started = time.monotonic()
    with ray_lease("gone", wait=math.inf):
        assert time.monotonic() - started < LEASE_SECONDS


def test_a_lease_outlives_its_keeper(ray_here):
    import ray
    from filelock import Timeout

    with ray_lease("held", wait=0):
        keeper = ray.get_actor(KEEPER, namespace=NAMESPACE)
        assert ray.get(keeper.claim.remote("known to the first keeper", "one", 600))
        ray.kill(keeper, no_restart=False)
        deadline = time.monotonic() + 30
        while not ray.get(keeper.claim.remote("known to the first keeper", "another", 600)):
            assert time.monotonic() < deadline, "the keeper was not killed"
            time.sleep(0.1)
        deadline = time.monotonic() + LEASE_SECONDS
        while ray.get(keeper.claim.remote("held", "another", 0.01)):
            assert time.monotonic() < deadline, "the holder has not claimed its key again"
            time.sleep(0.2)
        with pytest.raises(Timeout), ray_lease("held", wait=0):
            pass
    with ray_lease("held", wait=0):
        pass
