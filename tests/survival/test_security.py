"""A poisoned store does no harm, and a Ray that a study starts listens on loopback alone.

``security.py`` does the same on a cluster with tokens, while a study runs.
"""

import poison_checks
import psutil
import pytest
from poison_checks import HOSTILE, _Live
from security import LOOPBACK, holding, listening


@pytest.mark.parametrize(
    "check",
    [
        poison_checks.pickled_weights_are_not_loaded,
        poison_checks.code_of_a_model_is_not_run,
        poison_checks.pickles_in_a_checkpoint_are_not_run,
        poison_checks.records_lead_nowhere_else,
    ],
    ids=lambda check: check.__name__,
)
def test_poison(check, tmp_path):
    check(tmp_path)


def test_a_trap_springs_where_it_is_unpickled(tmp_path):
    import pickle

    pickle.loads(pickle.dumps(poison_checks.Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").is_dir()


def test_live_markup_is_found():
    live = _Live()
    live.feed(HOSTILE)
    assert live.scripts == 1
    assert len(live.found) == 3


def test_secrets_are_found_in_any_file(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "log").write_bytes(b"\x00\xffkey=SENTINEL-1\n")
    (tmp_path / "other").write_text("nothing")
    assert holding([tmp_path], ["SENTINEL-1", "SENTINEL-2"]) == ["SENTINEL-1 in log"]


def test_ray_on_this_machine_listens_on_loopback_alone(ray_here):
    addresses = listening(psutil.Process().children(recursive=True))
    assert addresses
    assert {address for address, _ in addresses} == {LOOPBACK}
