"""What a newcomer names as input in place of shards, and what that is told."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import Bucket
from inprocess import run
from making import encoded, job, picture, write_tar

from jobs.main import main
from pipeline.errors import ConfigError
from pipeline.inputs import find_shards


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pictures/cat").mkdir(parents=True)
    for number in range(3):
        (tmp_path / f"pictures/cat/{number}.v2.PNG").write_bytes(encoded(picture(number)))
    shutil.make_archive(str(tmp_path / "pictures"), "zip", tmp_path / "pictures")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("pictures", "found 3 pictures. Pack them first: zipstage pack pictures shards/"),
        ("pictures/cat/0.v2.PNG", "found a picture. Pack the folder that it is in: zipstage pack pictures/cat shards/"),
        ("pictures.zip", "found another archive. Unpack it into a folder, then: zipstage pack FOLDER shards/"),
        ("notes.txt", "found a file of another kind."),
        ("empty", "expected .tar or .tar.gz shards there, found none."),
        ("nowhere", "input nowhere: there is no such file or folder."),
    ],
)
def test_an_input_without_shards_is_told_what_it_is_and_what_to_do(here: Path, named: str, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        find_shards([named])
    assert expected in str(raised.value)


def test_what_the_line_says_to_do_works(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["purify", "--input", "pictures", "--output", "out"]) == 2
    command = capsys.readouterr().err.partition(": zipstage ")[2].split()
    assert main(command) == 0
    summary, _ = run(job(here, input="shards/"))
    assert summary.statuses == {"ok": 3}


def test_a_folder_or_a_shard_in_place_of_a_config_is_told_its_flag(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["purify", "pictures"]) == 2
    told = capsys.readouterr().err
    assert "expected YAML, found a folder. An input needs its flag: --input pictures." in told
    assert "zipstage pack pictures shards/" in told
    assert main(["plan", "a.tar"]) == 2
    assert capsys.readouterr().err.endswith("found a shard. An input needs its flag: --input a.tar.\n")


def test_a_tar_of_pictures_whose_names_have_dots_says_so_in_its_rows(here: Path) -> None:
    write_tar(here / "in/a.tar", [[("cat/0.v2.png", b"x"), ("cat/0.cls", b"1")]])
    summary, _ = run(job(here))
    assert summary.statuses == {"rejected": 1}
    (row,) = pq.read_table(here / "out/tables/a.tar.parquet").to_pylist()
    assert row["error"] == "expected one image among the members, found none, only .v2.png, .cls"
    with tarfile.open(here / "out/shards/a.tar") as tar:
        assert tar.getnames() == []


@pytest.mark.s3
def test_pictures_in_a_bucket_are_told_to_be_fetched_first(s3: Bucket) -> None:
    s3.client.put_object(Bucket=s3.name, Key="in/a.jpg", Body=b"x")
    with pytest.raises(ConfigError, match=r"found 1 pictures. Fetch them into a folder. Pack them first"):
        find_shards([f"{s3.uri}/in/"])
    with pytest.raises(ConfigError, match=r"shards there, found none\."):
        find_shards([f"{s3.uri}/nowhere/"])
