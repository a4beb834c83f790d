from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import lease as leases
from pipeline.errors import ExistsError, LeaseError, StoreAwayError
from pipeline.lease import LEASE_PATH, LOOKS, Holder, Lease
from pipeline.stopping import Stop
from pipeline.store import Store, open_store

DAY_S = 86_400.0
"""A period whose renewals no test waits for."""


@pytest.fixture(params=["files", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An output whose lease has to be renewed: a file system without locks, or a bucket."""

    def no_locks(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(leases.fcntl, "flock", no_locks)
    uri = str(tmp_path) if request.param == "files" else f"{request.getfixturevalue('s3').uri}/out"
    return open_store(uri, 5)


def elsewhere(run: str = "first", period_s: float = 60) -> Holder:
    """A driver on another machine, of which nothing is known."""
    return replace(Holder.here(run, period_s), machine="another", host="there", pid=77)


def leave(store: Store, holder: Holder) -> None:
    store.put(LEASE_PATH, holder.to_bytes())


def held(store: Store) -> Holder:
    return Holder.parse(store.get(LEASE_PATH))


def second(stop: Stop | None = None, wait: Callable[[float], None] = lambda seconds: None) -> Lease:
    return Lease("second", DAY_S, stop or Stop(), wait)


def nothing(text: str) -> None:
    raise AssertionError(f"nothing was to be told: {text}")


def test_a_lease_that_is_renewed_refuses_the_second_driver_and_says_whose_run_it_is(store: Store) -> None:
    first = elsewhere()
    leave(store, first)
    told: list[str] = []
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == LOOKS:  # at the last moment
            leave(store, replace(first, renewed=1))

    with second(wait=wait) as lease, pytest.raises(LeaseError) as raised:
        lease.take(store, told.append)
    assert raised.value.exit_code == 75
    assert f"run first (host there, pid 77, since {first.since})" in str(raised.value)
    assert sum(waited) == pytest.approx(first.period_s)  # the first one's period, by the second one's clock
    assert "watching its lease for 60 s" in told[0]
    assert held(store).nonce == first.nonce


def test_a_lease_that_nobody_renews_for_a_period_is_taken_over(store: Store) -> None:
    leave(store, elsewhere())
    waited: list[float] = []
    with second(wait=waited.append) as lease:
        lease.take(store, lambda text: None)
        assert held(store).run == "second"
    assert len(waited) == LOOKS
    assert not list(store.list())


def test_the_lease_of_a_process_that_is_gone_is_taken_over_at_once(store: Store) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for gone in (ended.pid, os.getpid()):  # the second one's number was given to another process
        leave(store, replace(Holder.here("first", 60), pid=gone, born="1"))
        with second(wait=lambda seconds: nothing("watched")) as lease:
            lease.take(store, nothing)
            assert held(store).run == "second"


def test_a_lease_that_is_given_back_while_it_is_watched_is_taken(store: Store) -> None:
    leave(store, elsewhere())
    with second(wait=lambda seconds: store.delete(LEASE_PATH)) as lease:
        lease.take(store, lambda text: None)
        assert held(store).run == "second"


def test_a_put_that_answers_that_it_is_there_already_is_read_since_it_may_be_our_own(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Store.put

    def answer_lost(self: Store, path: str, data: bytes, *, create: bool = False) -> None:
        put(self, path, data, create=create)
        if create:
            raise ExistsError("it is there already")

    monkeypatch.setattr(Store, "put", answer_lost)
    with second(wait=lambda seconds: nothing("watched")) as lease:
        lease.take(store, nothing)
        assert held(store).run == "second"


def test_of_two_that_take_over_at_once_the_one_that_wrote_last_has_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(store, replace(Holder.here("dead", 60), born="1"))
    put = Store.put

    def another_right_after(self: Store, path: str, data: bytes, *, create: bool = False) -> None:
        put(self, path, data, create=create)
        put(self, path, elsewhere("third").to_bytes())

    monkeypatch.setattr(Store, "put", another_right_after)
    with second() as lease, pytest.raises(LeaseError, match="run third"):
        lease.take(store, nothing)
    assert held(store).run == "third"


def test_a_driver_whose_lease_was_taken_over_is_told_by_its_next_renewal_and_leaves_it_alone(store: Store) -> None:
    stop = Stop()
    with second(stop) as lease:
        lease.take(store, nothing)
        assert lease.renew(store)
        assert held(store).renewed == 1
        leave(store, elsewhere("third"))
        assert not lease.renew(store)
    assert held(store).run == "third"
    with pytest.raises(LeaseError, match=r"this run stood still, and run third \(host there.* took over") as raised:
        stop.insist()
    assert raised.value.exit_code == 75


def test_the_lease_is_renewed_by_itself_several_times_a_period(store: Store) -> None:
    with Lease("run", 0.3, Stop()) as lease:
        lease.take(store, nothing)
        while held(store).renewed < 3:
            pass


def test_storage_that_is_away_for_a_renewal_ends_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Stop()
    with second(stop) as lease:
        lease.take(store, nothing)

        def away(*_: object) -> bytes:
            raise StoreAwayError("storage doesn't answer")

        monkeypatch.setattr(Store, "get", away)
        assert lease.renew(store)
        assert not stop.is_asked


def test_a_file_that_is_no_lease_is_watched_for_a_period_of_our_own(store: Store) -> None:
    for content in (b"", b"[]", b'{"run": 1}', b"\xff"):
        store.put(LEASE_PATH, content)
        waited: list[float] = []
        with second(wait=waited.append) as lease:
            lease.take(store, lambda text: None)
            assert held(store).run == "second"
        assert sum(waited) == pytest.approx(DAY_S)


def test_on_a_local_disk_the_second_driver_is_refused_at_once_and_the_end_leaves_nothing(tmp_path: Path) -> None:
    output = open_store(str(tmp_path))
    with Lease("first", DAY_S, Stop()) as first:
        first.take(output, nothing)
        with second() as lease, pytest.raises(LeaseError, match=f"run first .*pid {os.getpid()}") as raised:
            lease.take(output, nothing)
        assert raised.value.exit_code == 75
        assert held(output).run == "first"
    assert not list(tmp_path.rglob("*.json"))
    with second() as lease:
        lease.take(output, nothing)
        assert held(output).run == "second"


def test_a_local_lease_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pipeline.lease import Lease
from pipeline.stopping import Stop
from pipeline.store import open_store
lease = Lease("first", 60, Stop())
lease.take(open_store({str(tmp_path)!r}), print)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert json.loads((tmp_path / LEASE_PATH).read_text())["run"] == "first"
    with second(wait=lambda seconds: nothing("watched")) as lease:
        lease.take(open_store(str(tmp_path)), nothing)


def test_no_period_is_no_lease(tmp_path: Path) -> None:
    output = open_store(str(tmp_path))
    with Lease("first", DAY_S, Stop()) as first, Lease("second", 0, Stop()) as lease:
        first.take(output, nothing)
        lease.take(output, nothing)
        assert held(output).run == "first"
    assert not list(output.list())
