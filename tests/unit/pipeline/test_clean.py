from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Bucket
from inprocess import DIED, run, run_in_a_process
from making import job, samples, tree, write_tar

from jobs.main import main
from pipeline import uploads
from pipeline.clean import clean
from pipeline.errors import ConfigError, LeaseError, StoreError
from pipeline.lease import LEASE_PATH, Lease
from pipeline.stopping import Stop
from pipeline.store import open_store
from pipeline.uploads import Upload
from pipeline.verify import verify

COMMITTED = ("shards", "tables", "records", "predictions", "runs", "settings.json", "_info.json")


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """An output with a committed shard, and what a run left that was killed at the next one."""
    write_tar(tmp_path / "in/a.tar", samples(2))
    run(job(tmp_path))
    write_tar(tmp_path / "in/b.tar", samples(6, 100, 200, 200))
    assert run_in_a_process(job(tmp_path, part__tiles=2), 4, tmp_path / "log") == DIED
    return tmp_path


def die_while_writing(path: Path) -> None:
    """A process that is killed with a part of a large file on the disk."""
    program = f"""
import os, signal
from pipeline.store import open_store
with open_store({str(path.parent)!r}).writer({path.name!r}) as file:
    for _ in range(40):
        file.write(bytes(1 << 20))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL


def told(text: str) -> None:
    raise AssertionError(f"nothing was to be told: {text}")


def test_staging_and_temporary_files_go_and_what_is_committed_stays(killed: Path) -> None:
    out = killed / "out"
    die_while_writing(out / "shards/b.tar")
    before = tree(out, *COMMITTED)
    temporary = [path for path in before if "#" in path]
    assert len(temporary) == 1
    assert tree(out, "_staging")
    found = clean(open_store(str(out)), told)
    assert [path.name for path in found.temporary] == [Path(temporary[0]).name]
    assert found.size_bytes > sum(found.temporary.values()) > 0
    assert tree(out, *COMMITTED) == {path: data for path, data in before.items() if path not in temporary}
    assert not (out / "_staging").exists()
    assert not (out / LEASE_PATH).exists()
    assert verify(open_store(str(out))).findings == []
    summary, _ = run(job(killed, part__tiles=2))
    assert summary.committed == ["b.tar"]


def test_a_dry_run_finds_the_same_and_removes_nothing(killed: Path) -> None:
    output = open_store(str(killed / "out"))
    before = tree(killed, "out")
    looked = clean(output, told, dry_run=True)
    assert tree(killed, "out") == {path: data for path, data in before.items() if path != f"out/{LEASE_PATH}"}
    assert clean(output, told) == looked


def test_what_others_keep_in_the_folder_is_left_alone(killed: Path) -> None:
    mine = [killed / "out" / name for name in ("notes/x#1", "x#2", "shards.txt#1")]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    clean(open_store(str(killed / "out")), told)
    assert all(path.exists() for path in mine)


def test_where_a_driver_is_at_work_nothing_is_removed(killed: Path) -> None:
    output = open_store(str(killed / "out"))
    staged = tree(killed / "out", "_staging")
    with Lease("nightly-1", 60, Stop()) as lease:
        lease.take(output, told)
        for dry_run in (True, False):
            with pytest.raises(LeaseError, match="run nightly-1"):
                clean(output, told, dry_run=dry_run)
    assert tree(killed / "out", "_staging") == staged != {}


def test_a_folder_that_is_no_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "_staging").mkdir()
    (tmp_path / "_staging/x").write_text("mine")
    with pytest.raises(ConfigError, match=r"found no settings\.json"):
        clean(open_store(str(tmp_path)), told)
    assert (tmp_path / "_staging/x").exists()


def test_the_command_says_in_one_line_what_it_removed(killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(killed / "out")
    staged = tree(killed / "out", "_staging")
    assert main(["clean", out, "--dry-run"]) == 0
    would = capsys.readouterr().out
    assert would.startswith(f"would remove {len(staged)} staged files (")
    assert main(["clean", out, "-v"]) == 0
    said = capsys.readouterr()
    assert said.out == would.replace("would remove", "removed")
    assert "_staging/b.tar/" in said.err
    assert main(["clean", out]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"


@pytest.mark.s3
def test_in_a_bucket_unfinished_uploads_go_as_well(
    s3: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(tmp_path / "in/a.tar", samples(2))
    uri = f"{s3.uri}/out"
    run(job(tmp_path, output=uri))
    output = open_store(uri)
    output.put("_staging/b.tar/000000000000/00000.arrow", b"staged")
    begun = [
        s3.client.create_multipart_upload(Bucket=s3.name, Key=key)["UploadId"]
        for key in ("out/shards/b.tar", "elsewhere/shards/b.tar", "out/notes/b")
    ]
    assert main(["clean", uri]) == 0
    assert capsys.readouterr().out == "removed 1 staged file, 1 unfinished upload (6 B)\n"
    left = s3.client.list_multipart_uploads(Bucket=s3.name)["Uploads"]
    assert sorted(item["UploadId"] for item in left) == sorted(begun[1:])
    assert not list(output.list("_staging"))
    assert verify(output).findings == []
    uploads.abort(Upload(s3.name, "out/shards/b.tar", begun[0]))  # one that is gone is fine


@pytest.mark.s3
def test_an_upload_that_may_not_be_aborted_is_named(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = Upload(f"{s3.name}-none", "out/shards/b.tar", "0")
    with pytest.raises(StoreError, match=f"s3://{upload.bucket}/out/shards/b.tar: can't abort its upload"):
        uploads.abort(upload)


@pytest.mark.s3
def test_storage_that_lists_no_uploads_is_told_of_a_lifecycle_rule(
    s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(tmp_path / "in/a.tar", samples(2))
    run(job(tmp_path, output=f"{s3.uri}/out"))
    assert uploads.list_unfinished(f"{s3.uri}-none/out") is None
    assert uploads.list_unfinished("gs://bucket/out") is None
    monkeypatch.setattr(uploads, "list_unfinished", lambda uri: None)
    assert main(["clean", f"{s3.uri}/out"]) == 0
    assert "leave them to a lifecycle rule" in capsys.readouterr().out
