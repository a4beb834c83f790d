"""Drivers that are killed at any moment, and two that are at work on one output at once."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import Bucket
from inprocess import InProcess, run
from killing import Logging, Turns, moments, purified, run_to
from making import job, samples, write_tar

from pipeline import job as main_path
from pipeline.config import JobConfig
from pipeline.errors import ConfigError, LeaseError
from pipeline.facts import Summary
from pipeline.lease import LEASE_PATH, Lease
from pipeline.stopping import Stop
from pipeline.store import Store, open_store
from pipeline.verify import verify

SIGNS = Path(__file__).parents[2] / "jobs" / "demo" / "signs.onnx"

PARTS = 16
"""Two shards of eight images, an image a part."""


class Place:
    """Where the shards come from and go to: a disk or a bucket; `reference` is what an undisturbed run gives."""

    def __init__(self, folder: Path, bucket: Bucket | None = None) -> None:
        self.folder, self.bucket = folder, bucket
        for name, first in (("a/000000.tar", 0), ("b.tar", 100)):
            path = write_tar(folder / "in" / name, samples(8, first, 200, 200))
            if bucket is not None:
                bucket.client.put_object(Bucket=bucket.name, Key=f"in/{name}", Body=path.read_bytes())
        self.moments: list[str] = []
        with moments(self.moments.append):
            summary, _ = run(self.job("reference"))
        self.reference = self.outcome(self.job("reference"), summary)

    def job(self, name: str, **fields: Any) -> JobConfig:
        root = self.bucket.uri if self.bucket else str(self.folder)
        return job(self.folder, **{"input": f"{root}/in", "output": f"{root}/{name}", "part__tiles": 1, **fields})

    def outcome(self, config: JobConfig, summary: Summary) -> dict[str, bytes]:
        """What a run that came to its end left, proven; of records the names, since they tell of the place."""
        assert (summary.exit_code, summary.failed, summary.unanswered) == (0, {}, {})
        output = open_store(config.output)
        report = verify(output)
        assert (report.findings, report.shards, report.samples) == ([], 2, PARTS)
        assert not list(output.list("_staging"))
        shown = [stored.path for folder in ("shards", "tables", "records") for stored in output.list(folder)]
        return {path: b"" if path.startswith("records/") else output.get(path) for path in shown}

    def moment(self, start: str) -> int:
        """The first one of which the name begins so."""
        return next(number for number, what in enumerate(self.moments, 1) if what.startswith(start))

    def choose(self, seed: int, count: int) -> list[int]:
        return random.Random(seed).sample(range(1, len(self.moments) + 1), count)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("disk"))


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, request.getfixturevalue("s3"))


def kill_and_run_again(place: Place, name: str, moment: int) -> int:
    """SIGKILL a driver at a moment and run again; gives how many parts were purified in all."""
    config, log = place.job(name), place.folder / f"{name}.log"
    code, said = run_to(config, log, {moment: signal.SIGKILL})
    assert code == -signal.SIGKILL, said
    summary, _ = run(config, purifier=Logging(log))
    assert place.outcome(config, summary) == place.reference
    return len(purified(log))


def test_a_driver_killed_at_any_of_fourteen_moments_is_finished_by_the_next(disk: Place) -> None:
    for moment in disk.choose(1, 14):
        # The one part that was purified and not yet staged is done again; no other.
        assert kill_and_run_again(disk, f"killed{moment}", moment) <= PARTS + 1, moment
    assert kill_and_run_again(disk, "first", 1) == PARTS


WRITES_OF_A_COMMIT = (
    "before write shards/a/",
    "after close shards/a/",
    "after close tables/a/",
    "after put records/a/",
    "before delete _staging/a/",
    "after delete _staging/a/",
)
"""What of a commit others can see: the moments before, between and after."""


@pytest.mark.s3
def test_a_driver_of_a_bucket_killed_around_each_write_of_a_commit_is_finished_by_the_next(place: Place) -> None:
    for number, start in enumerate(WRITES_OF_A_COMMIT):
        assert kill_and_run_again(place, f"killed{number}", place.moment(start)) == PARTS, start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_driver_that_is_interrupted_stages_what_it_purified_and_ends_with_130(disk: Place, number: int) -> None:
    for moment in disk.choose(number, 5):
        name = f"stopped{number}-{moment}"
        config, log = disk.job(name), disk.folder / f"{name}.log"
        code, said = run_to(config, log, {moment: number})
        assert code == 130, said
        assert "Traceback" not in said
        assert not (disk.folder / name / LEASE_PATH).exists()
        summary, _ = run(config, purifier=Logging(log))
        assert disk.outcome(config, summary) == disk.reference
        assert len(purified(log)) == PARTS, moment  # nothing that was purified was thrown away


def test_a_second_ctrl_c_ends_at_once(disk: Place) -> None:
    begin, end = disk.moment("before put _staging/"), disk.moment("after put _staging/")
    log = disk.folder / "twice.log"
    code, said = run_to(disk.job("twice"), log, {begin: signal.SIGINT, end: signal.SIGINT})
    assert code == 130, said
    assert len(purified(log)) == 1
    assert (disk.folder / "twice/runs").exists()  # and says what it came to


def at_once(turns: Turns, config: JobConfig) -> list[Any]:
    """Two drivers with the same settings, no lease between them."""

    def purify() -> Summary:
        return main_path.purify(config, lambda fact: None, InProcess)

    with moments(turns):
        return turns.run(purify, purify)


@pytest.mark.parametrize("seed", range(4))
def test_two_drivers_that_write_at_once_leave_every_shard_whole(disk: Place, seed: int) -> None:
    config = disk.job(f"both{seed}", cluster__lease_s=0)
    for summary in at_once(Turns(seed), config):
        assert disk.outcome(config, summary) == disk.reference


@pytest.mark.parametrize("seed", range(6))
def test_two_drivers_that_overwrite_at_once_leave_every_shard_whole(disk: Place, seed: int) -> None:
    shutil.copytree(disk.folder / "reference", disk.folder / f"over{seed}")
    config = disk.job(f"over{seed}", cluster__lease_s=0, overwrite=True)
    for summary in at_once(Turns(seed), config):
        assert disk.outcome(config, summary) == disk.reference


def test_a_fresh_record_of_another_driver_is_not_withdrawn(disk: Place) -> None:
    """The other one overwrites between this one's plan and its first commit."""
    shutil.copytree(disk.folder / "reference", disk.folder / "fresh")
    config = disk.job("fresh", cluster__lease_s=0, overwrite=True)
    deleted: list[str] = []
    other: list[Summary] = []

    def hook(what: str) -> None:
        if not other and what.startswith("before put _staging/a/"):
            with moments(lambda what: None):
                other.append(run(config)[0])
        elif what.startswith("before delete"):
            deleted.append(what)

    with moments(hook):
        summary, _ = run(config)
    assert disk.outcome(config, summary) == disk.outcome(config, other[0]) == disk.reference
    assert not [what for what in deleted if "records/" in what]


def overwritten_by_another_at(place: Place, start: str) -> None:
    """Another driver overwrites everything when this one, which overwrites as well, comes to a moment."""
    config = place.job("reference", cluster__lease_s=0, overwrite=True)
    other: list[Summary] = []

    def hook(what: str) -> None:
        if not other and what.startswith(start):
            with moments(lambda what: None):
                other.append(run(config)[0])

    with moments(hook):
        summary, _ = run(config)
    assert place.outcome(config, summary) == place.outcome(config, other[0]) == place.reference


def test_a_fresh_record_that_was_withdrawn_all_the_same_is_put_back(tmp_path: Path) -> None:
    overwritten_by_another_at(Place(tmp_path), "before delete records/a/")


@pytest.mark.s3
def test_a_fresh_record_is_put_back_in_a_bucket_that_tells_equal_records_not_apart(place: Place) -> None:
    overwritten_by_another_at(place, "before head records/a/")


def test_of_two_first_drivers_with_different_settings_exactly_one_is_refused(disk: Place) -> None:
    for seed in range(4):
        name = f"first{seed}"
        png, webp = (disk.job(name, cluster__lease_s=0, encoding__format=kind) for kind in ("png", "webp"))
        turns = Turns(seed)
        with moments(turns):
            ended = turns.run(*(lambda config=config: run(config)[0] for config in (png, webp)))
        refused = [error for error in ended if isinstance(error, ConfigError)]
        assert len(refused) == 1, ended
        assert "encoding.format was" in str(refused[0])
        assert verify(open_store(png.output)).findings == []


def test_the_second_driver_says_whose_run_it_is_and_takes_over_when_the_first_is_dead(disk: Place) -> None:
    config, log = disk.job("taken"), disk.folder / "taken.log"
    with Lease("nightly-1", 60, Stop()) as first:
        Path(config.output).mkdir()
        first.take(open_store(config.output), print)
        with pytest.raises(LeaseError, match=r"run nightly-1 \(host .*, pid \d+, since .*\) is at work there"):
            run(config)
        code, said = run_to(config, log, {})
    assert code == 75
    assert "run nightly-1" in said
    assert purified(log) == []
    code, _ = run_to(config, log, {len(disk.moments) // 2: signal.SIGKILL})
    assert code == -signal.SIGKILL
    summary, _ = run(config, purifier=Logging(log))
    assert disk.outcome(config, summary) == disk.reference


def test_a_query_takes_the_lease_and_what_writes_nothing_does_not(disk: Place) -> None:
    asked = {"protocol": "onnx", "path": str(SIGNS), "name": "signs", "input__size": 32}
    config = disk.job("reference", **{f"classifier__{name}": value for name, value in asked.items()})
    with Lease("nightly-1", 60, Stop()) as first:
        first.take(open_store(config.output), print)
        with pytest.raises(LeaseError, match="run nightly-1"):
            main_path.query(config, lambda fact: None, InProcess)
        assert main_path.prepare(config, lambda fact: None, lease=None).to_ask
        assert verify(open_store(config.output)).findings == []


def test_a_driver_that_wakes_up_when_another_took_over_stops_and_has_done_no_harm(
    disk: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands still in the middle of a commit; the other one works to the end; then it goes on for a while."""
    config = disk.job("woken")
    stops: list[Stop] = []
    monkeypatch.setattr(main_path, "Stop", lambda: stops.append(Stop()) or stops[-1])
    others: list[Summary] = []

    def hook(what: str) -> None:
        if what.startswith("before write shards/a/") and not others:
            with moments(lambda what: None):
                others.append(run(disk.job("woken", cluster__lease_s=0))[0])
            stops[0].ask(LeaseError("another run took over"))  # as its next renewal does

    with moments(hook), pytest.raises(LeaseError, match="took over") as raised:
        run(config)
    assert raised.value.exit_code == 75
    assert disk.outcome(config, others[0]) == disk.reference


def test_a_server_that_ignores_conditions_is_named_with_what_follows_from_it(
    disk: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Store.put
    monkeypatch.setattr(Store, "put", lambda self, path, data, *, create=False: put(self, path, data))
    monkeypatch.setattr(main_path, "supports_create", lambda store, path: False)
    told: list[str] = []
    main_path.purify(disk.job("ignoring"), lambda fact: told.append(str(fact)), InProcess)
    assert any("let only one run write there at a time" in line for line in told)
