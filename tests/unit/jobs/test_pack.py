"""`zipstage pack`: what comes out is read by webdataset, and is the folder: each picture once, byte for byte."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
import webdataset
from conftest import Bucket
from inprocess import run
from making import encoded, job, picture
from PIL import Image

from jobs.main import main
from jobs.pack.pack import Packed, Wanted, pack, told
from pipeline.errors import ConfigError


def put(folder: Path, *paths: str) -> dict[str, bytes]:
    """Files below a folder, another picture each."""
    written = {}
    for path in paths:
        kind = "JPEG" if path.lower().endswith(("jpg", "jpeg")) else "PNG"
        written[path] = encoded(picture(int(hashlib.sha256(path.encode()).hexdigest()[:8], 16)), kind)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(written[path])
    return written


def packed(folder: Path, output: Path | str, **wanted: Any) -> Packed:
    return pack(Wanted(folder, str(output), **wanted), lambda line: None)


def read(*shards: Path) -> dict[str, dict[str, bytes]]:
    """The samples as webdataset reads them, by key."""
    urls = [str(shard) for shard in shards]
    found = {}
    for sample in webdataset.WebDataset(urls, shardshuffle=False, empty_check=False):
        key = sample["__key__"]
        assert key not in found
        found[key] = {name: data for name, data in sample.items() if not name.startswith("__")}
    return found


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_each_picture_byte_for_byte_with_its_folders_class(tmp_path: Path) -> None:
    files = put(tmp_path / "in", "dog/a.png", "cat/b.JPG", "cat/old/c.jpeg", "dog/x y.webp")
    packed(tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out/classes.txt").read_text() == "cat\ndog\n"
    assert read(tmp_path / "out/000000.tar") == {
        "cat/b": {"jpg": files["cat/b.JPG"], "cls": b"0"},
        "cat/old/c": {"jpeg": files["cat/old/c.jpeg"], "cls": b"0"},
        "dog/a": {"png": files["dog/a.png"], "cls": b"1"},
        "dog/x y": {"webp": files["dog/x y.webp"], "cls": b"1"},
    }


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_whatever_pictures_are_called_each_is_a_sample_of_its_own(tmp_path: Path) -> None:
    names = ["a.png", "a.jpg", "a_2.png", "v1.2.final.png", "v1_2.final.png", "b..png", "\u2603 ü.png", "x\ny.png"]
    names += ["back\\slash.png", os.fsdecode(b"caf\xe9.png"), "-.png", "a.b/c.d.png", "__x__/y.png", "~.PNG"]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(encoded(picture(len(name))) + os.fsencode(name))
    result = packed(tmp_path / "in", tmp_path / "out", has_labels=False)
    samples = read(tmp_path / "out/000000.tar")
    assert len(samples) == len(names)
    held = sorted(data for sample in samples.values() for data in sample.values())
    assert held == sorted((tmp_path / "in" / name).read_bytes() for name in names)
    assert {"a", "a_2", "a_2_2", "v1_2_final", "v1_2_final_2", "a.b/c_d"} <= set(samples)
    assert all(line[:11].strip() for line in told(result, "out", "").splitlines())  # no name begins a line
    summary, _ = run(job(tmp_path, input=str(tmp_path / "out"), output=str(tmp_path / "purified")))
    assert summary.statuses == {"ok": len(names)}


def test_the_same_folder_gives_the_same_bytes_whenever_it_was_written(tmp_path: Path) -> None:
    put(tmp_path / "one", "a/1.png", "b/2.png", "a/3.png")
    put(tmp_path / "two", "a/3.png", "b/2.png", "a/1.png")
    os.utime(tmp_path / "two/a/1.png", (1, 1))
    packed(tmp_path / "one", tmp_path / "out1")
    packed(tmp_path / "two", tmp_path / "out2")
    assert digests(tmp_path / "out1") == digests(tmp_path / "out2")
    with tarfile.open(tmp_path / "out1/000000.tar") as tar:
        assert {(member.mtime, member.uid, member.uname) for member in tar} == {(0, 0, "")}


def test_packing_again_changes_nothing_and_something_else_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "in", "1.png", "2.png")
    assert packed(tmp_path / "in", tmp_path / "out").is_new
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert not packed(tmp_path / "in", tmp_path / "out").is_new
    put(tmp_path / "in", "3.png")
    with pytest.raises(ConfigError, match=r"holds something else, such as 000000\.tar"):
        packed(tmp_path / "in", tmp_path / "out")
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_what_is_missing_of_the_same_is_written(tmp_path: Path) -> None:
    put(tmp_path / "in", "1.png", "2.png")
    packed(tmp_path / "in", tmp_path / "out", samples_per_shard=1)
    whole = digests(tmp_path / "out")
    for name in whole:
        (tmp_path / "out" / name).unlink()
        assert packed(tmp_path / "in", tmp_path / "out", samples_per_shard=1).is_new
        assert digests(tmp_path / "out") == whole


def test_an_empty_folder_is_filled_and_stays_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "in", "1.png")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    result = packed(Path("../in"), ".")
    assert told(result, ".", "").endswith("--input . --output ../purified/")
    assert sorted(path.name for path in Path().iterdir()) == ["000000.tar", "_SUCCESS"]


def test_a_folder_with_something_in_it_is_no_output(tmp_path: Path) -> None:
    put(tmp_path / "in", "1.png")
    put(tmp_path / "out", "mine.png")
    with pytest.raises(ConfigError, match=r"something else, such as mine\.png"):
        packed(tmp_path / "in", tmp_path / "out")
    with pytest.raises(ConfigError, match="lies inside the input"):
        packed(tmp_path / "in", tmp_path / "in/shards")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_nothing_is_visible_when_a_picture_cant_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "in", "1.png", "2.png")
    whole = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.name == "2.png":
            raise PermissionError(13, "Permission denied")
        return whole(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(ConfigError, match=r"2\.png: can't be read: Permission denied"):
        packed(tmp_path / "in", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    monkeypatch.undo()
    assert packed(tmp_path / "in", tmp_path / "out").is_new
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_shards_are_cut_by_number_and_by_size(tmp_path: Path) -> None:
    names = [f"{i:02d}.png" for i in range(7)]
    put(tmp_path / "in", *names)
    assert packed(tmp_path / "in", tmp_path / "by-number", samples_per_shard=3).shards == 3
    shards = [tmp_path / f"by-number/00000{i}.tar" for i in range(3)]
    assert [list(read(shard)) for shard in shards] == [["00", "01", "02"], ["03", "04", "05"], ["06"]]
    (tmp_path / "in/03.png").write_bytes(bytes(100_000))
    assert packed(tmp_path / "in", tmp_path / "by-size", shard_mib=0.05).shards == 3
    assert list(read(tmp_path / "by-size/000001.tar")) == ["03"]


def test_what_is_left_out_is_told_and_links_to_files_are_followed(tmp_path: Path) -> None:
    files = put(tmp_path / "in", "a.png", ".hidden.png", ".git/b.png", "sub.txt")
    (tmp_path / "in/link.png").symlink_to("a.png")
    (tmp_path / "in/gone.png").symlink_to("nowhere.png")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    result = packed(tmp_path / "in", tmp_path / "out")
    lines = {line[:11].strip(): line[11:] for line in told(result, "out", "9 KiB").splitlines()}
    assert lines["pictures"] == "2 in 1 shard, 9 KiB"
    assert lines["not packed"] == "1: sub.txt"
    assert lines["hidden"] == "2: .git, .hidden.png"
    assert lines["links"] == "2: gone.png, loop"
    assert lines["next"] == "zipstage purify --input out --output purified/"
    with tarfile.open(tmp_path / "out/000000.tar") as tar:
        linked = tar.extractfile("link.png")
        assert linked is not None
        assert linked.read() == files["a.png"]


def labels_in(shard: Path) -> dict[str, str]:
    with tarfile.open(shard) as tar:
        names = [member.name for member in tar if member.name.endswith(".cls")]
        return {name[:-4]: tar.extractfile(name).read().decode() for name in names}  # type: ignore[union-attr]


def test_folders_of_numbers_keep_their_order_and_zero_based_ones_their_numbers(tmp_path: Path) -> None:
    put(tmp_path / "in", *(f"{number}/x.png" for number in range(12)))
    packed(tmp_path / "in", tmp_path / "out")
    assert labels_in(tmp_path / "out/000000.tar") == {f"{number}/x": str(number) for number in range(12)}


@pytest.mark.parametrize(
    ("text", "labels", "classes"),
    [
        ("a.png,7\nsub/b.png,0\n", {"a": "7", "sub/b": "0"}, None),
        ("file,label\r\n./a.png,stop\r\nsub\\b.png,go\r\n", {"a": "1", "sub/b": "0"}, "go\nstop\n"),
        ("\ufeffpath;class\na.png;dog\n", {"a": "0"}, "dog\n"),
    ],
)
def test_classes_come_from_a_csv_file(tmp_path: Path, text: str, labels: dict[str, str], classes: str | None) -> None:
    put(tmp_path / "in", "a.png", "sub/b.png")
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8", newline="")
    result = packed(tmp_path / "in", tmp_path / "out", labels=tmp_path / "labels.csv")
    assert labels_in(tmp_path / "out/000000.tar") == labels
    found = tmp_path / "out/classes.txt"
    assert (found.read_text() if found.exists() else None) == classes
    assert ("1 pictures without one" in told(result, "out", "")) == (len(labels) == 1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a.png,1\nb.png,2\n", "1 of 2 lines name none, such as b.png"),
        ("a.png,1\na.png,2\n", "found two for a.png"),
        ("a.png\n", "expected lines `path,class`, found 'a.png'"),
        ("", "expected lines `path,class`, found none"),
    ],
)
def test_a_csv_file_that_doesnt_fit_is_refused(tmp_path: Path, text: str, why: str) -> None:
    put(tmp_path / "in", "a.png")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ConfigError) as raised:
        packed(tmp_path / "in", tmp_path / "out", labels=tmp_path / "labels.csv")
    assert why in str(raised.value)


def test_wrong_usage_is_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "mixed", "a.png", "dog/b.png")
    (tmp_path / "empty").mkdir()
    put(tmp_path / "none", "notes.txt", ".x.png")
    out = str(tmp_path / "out")
    for arguments, why in (
        (["mixed", out], "found 1 beside them, such as a.png"),
        (["empty", out], "found nothing"),
        (["none", out], "found 1 other files, 1 hidden ones"),
        (["nowhere", out], "nowhere: can't be read: No such file or directory"),
        (["mixed/a.png", out], "expected a folder of pictures, found a file"),
        (["mixed", out, "--no-labels", "--labels", "x.csv"], "expected one of them"),
        (["mixed", out, "--samples-per-shard", "0"], "expected more than 0"),
        (["s3://bucket/in", out], "expected a folder on this machine"),
    ):
        folder = arguments[0] if "://" in arguments[0] else str(tmp_path / arguments[0])
        assert main(["pack", folder, *arguments[1:]]) == 2
        message = capsys.readouterr().err
        assert why in message
        assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_is_packed_can_be_purified_with_its_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "pictures", "cat/1.png", "dog/2.v2.jpg")
    assert main(["pack", str(tmp_path / "pictures"), str(tmp_path / "in")]) == 0
    assert "2 in 1 shard" in capsys.readouterr().out
    summary, _ = run(job(tmp_path, marker="_SUCCESS"))
    assert summary.exit_code == 0
    assert summary.statuses == {"ok": 2}
    assert labels_in(tmp_path / "out/shards/000000.tar") == {"cat/1": "0", "dog/2_v2": "1"}
    with tarfile.open(tmp_path / "out/shards/000000.tar") as tar:
        image = tar.extractfile("cat/1.png")
        assert image is not None
        assert Image.open(io.BytesIO(image.read())).size == (32, 32)
    assert json.loads((tmp_path / "out/_info.json").read_text())["splits"]["all"]["num_samples"] == 2


@pytest.mark.s3
def test_in_a_bucket_a_broken_run_is_gone_on_with_and_the_marker_comes_last(s3: Bucket, tmp_path: Path) -> None:
    put(tmp_path / "in", "a/1.png", "b/2.png")
    packed(tmp_path / "in", tmp_path / "local", samples_per_shard=1)
    uri = f"{s3.uri}/packed"
    s3.client.upload_file(str(tmp_path / "local/000000.tar"), s3.name, "packed/000000.tar")
    first = s3.client.head_object(Bucket=s3.name, Key="packed/000000.tar")["LastModified"]
    assert packed(tmp_path / "in", uri, samples_per_shard=1).is_new
    listed = s3.client.list_objects_v2(Bucket=s3.name, Prefix="packed/")["Contents"]
    by_name = {item["Key"].removeprefix("packed/"): item for item in listed}
    assert set(by_name) == {"000000.tar", "000001.tar", "classes.txt", "_SUCCESS"}
    assert by_name["000000.tar"]["LastModified"] == first
    assert by_name["_SUCCESS"]["LastModified"] == max(item["LastModified"] for item in listed)
    for name in by_name:
        body = s3.client.get_object(Bucket=s3.name, Key=f"packed/{name}")["Body"].read()
        assert body == (tmp_path / "local" / name).read_bytes()
    assert not packed(tmp_path / "in", uri, samples_per_shard=1).is_new
    s3.client.put_object(Bucket=s3.name, Key="packed/000001.tar", Body=b"other")
    with pytest.raises(ConfigError, match=r"something else, such as 000001\.tar"):
        packed(tmp_path / "in", uri, samples_per_shard=1)
