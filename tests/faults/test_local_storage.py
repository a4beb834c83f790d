"""Local places that can't be used: one line at the command line, nothing half there, and the rerun ends the same."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from inprocess import run
from making import job, samples, tree, write_tar

from pipeline import store as store_module
from pipeline.errors import StoreRefusedError

ROOT = Path(__file__).parents[2]
_CAPBSET_DROP, _DAC_OVERRIDE, _DAC_READ_SEARCH = 24, 1, 2


def _obey_modes() -> None:
    """Root too: it owns the files, and loses what lets it pass over their modes."""
    for capability in (_DAC_OVERRIDE, _DAC_READ_SEARCH):
        ctypes.CDLL(None).prctl(_CAPBSET_DROP, capability, 0, 0, 0)


def command(*arguments: Any) -> tuple[int, str]:
    """Run a command as a person without special powers would; gives its exit code and what stderr says."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:9"},  # none of these may get as far as Ray
        preexec_fn=_obey_modes,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@contextmanager
def mode(path: Path, bits: int) -> Iterator[None]:
    before = path.stat().st_mode
    path.chmod(bits)
    try:
        yield
    finally:
        path.chmod(before)


@pytest.fixture
def received(tmp_path: Path) -> Path:
    for name, first in (("a/000000.tar", 0), ("b.tar", 100)):
        write_tar(tmp_path / "in" / name, samples(16, first, 200, 200))
    return tmp_path


def purify(folder: Path) -> tuple[int, str]:
    return command("purify", "--input", folder / "in", "--output", folder / "out", "--purifier.method", "none")


def test_a_folder_of_the_input_that_cant_be_listed_is_named_and_nothing_is_begun(received: Path) -> None:
    with mode(received / "in/a", 0):
        code, said = purify(received)
    assert code == 1
    assert said == f"zipstage: {received}/in: can't list: {received}/in/a: no permission; check its owner and mode.\n"
    assert not (received / "out").exists()


def test_an_output_that_cant_be_written_is_named_and_nothing_is_left(received: Path) -> None:
    (received / "out").mkdir()
    with mode(received / "out", 0o500):
        code, said = purify(received)
    assert code == 1
    assert said == f"zipstage: {received}/out/settings.json: can't write: no permission; check its owner and mode.\n"
    assert list((received / "out").iterdir()) == []


def test_records_that_cant_be_listed_are_not_taken_for_none(received: Path) -> None:
    run(job(received))
    with mode(received / "out/records", 0):
        code, said = purify(received)
        verified, said_of_that = command("verify", received / "out")
    assert (code, verified) == (1, 1)
    for line in (said, said_of_that):
        assert line == f"zipstage: {received}/out/records: can't list: no permission; check its owner and mode.\n"


def test_a_store_that_runs_full_ends_the_run_at_the_first_part_that_doesnt_fit(
    received: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(job(received, part__tiles=2))
    reference = tree(received / "out", "shards", "tables")
    put, puts = store_module.obstore.put, []

    def filling(inner: Any, path: str, data: bytes, **more: Any) -> Any:
        puts.append(path)
        if "_staging/" in path and len(puts) > 4:
            raise OSError(28, "No space left on device")
        return put(inner, path, data, **more)

    config = job(received, output=str(received / "other"), part__tiles=2)
    with monkeypatch.context() as full:
        full.setattr(store_module.obstore, "put", filling)
        with pytest.raises(StoreRefusedError, match="the disk is full"):
            run(config)
    assert sum("_staging/" in path for path in puts) == len(tree(received / "other", "_staging")) + 1
    rerun, engine = run(config)
    assert rerun.exit_code == 0
    assert engine is not None
    assert rerun.parts["reused"] == sum("_staging/" in path for path in puts) - 1
    assert tree(received / "other", "shards", "tables", "_staging") == reference
