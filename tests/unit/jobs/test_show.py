"""`zipstage show`: a sample's row and picture, of the right sample, whatever is missing."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Bucket
from inprocess import run
from making import encoded, job, picture, samples, write_tar
from PIL import Image
from storing import write_classifier

from jobs.main import main
from jobs.picture import difference
from jobs.show.show import Wanted, show_sample
from pipeline.errors import ConfigError
from pipeline.store import open_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of two shards that share a key, purified to negatives; one sample can't be decoded."""
    folder = tmp_path_factory.mktemp("show")
    write_classifier(folder / "bright.onnx")
    broken = [("broken.png", encoded(picture(7))[:60]), ("broken.cls", b"1")]
    write_tar(folder / "in/a.tar", [*samples(4), broken])
    write_tar(folder / "in/cam/b.tar", samples(5, first=3))
    classifier: dict[str, Any] = {"protocol": "onnx", "path": str(folder / "bright.onnx"), "name": "bright"}
    classifier["input"] = {"size": 32, "mean": [0.5], "std": [0.5]}  # a negative is of the other class
    summary, _ = run(job(folder, **{f"classifier__{name}": value for name, value in classifier.items()}))
    assert summary.committed == ["a.tar", "cam/b.tar"]
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the output, whose input lies where its records say, and a folder to be in."""
    shutil.copytree(made / "out", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(output: Path, **wanted: Any) -> tuple[dict[str, str], list[str]]:
    """The lines by their names, and what was noted."""
    notes: list[str] = []
    text = show_sample(open_store(str(output)), Wanted(**wanted), notes.append, random.Random(1))
    return {line[:12].strip(): line[12:] for line in text.splitlines()}, notes


def holds(sheet: Path, image: np.ndarray, enlarge: int = 8) -> bool:
    """Whether a picture holds an image somewhere, each of its pixels a square."""
    pixels = np.asarray(Image.open(sheet).convert("RGB"))
    block = image.repeat(enlarge, 0).repeat(enlarge, 1)
    height, width = block.shape[:2]
    corners = np.argwhere((pixels[: 1 - height, : 1 - width] == block[0, 0]).all(-1))
    return any(np.array_equal(pixels[top : top + height, left : left + width], block) for top, left in corners)


def test_a_named_sample_is_shown_as_received_as_purified_and_by_its_difference(here: Path) -> None:
    told, notes = shown(here / "out", key="000005")
    assert notes == []
    assert (told["key"], told["status"], told["label"]) == ("000005", "ok", "5")
    assert told["shard"] == "cam/b.tar, sample 3 of 5"
    assert told["image"] == "32x32 px, received as RGB"
    received = picture(5)
    sheet = here / told["picture"]
    assert sheet.name == "show-000005.png"
    assert holds(sheet, received)
    assert holds(sheet, 255 - received)
    assert any(holds(sheet, difference(received, 255 - received, times)) for times in (1, 2, 4, 8, 16, 32))


def test_the_answers_are_those_of_the_predictions(here: Path) -> None:
    told, _ = shown(here / "out", key="000005")
    rows = pq.read_table(here / "out/predictions/bright/cam/b.tar.parquet").to_pylist()
    (row,) = [row for row in rows if row["key"] == "000005"]
    assert told["classifier"] == "bright"
    assert told["before"].startswith(f"class {row['prediction_before']}, score {row['scores_before'][0]['score']:.3g}")
    assert told["after"].startswith(f"class {row['prediction_after']}")
    assert told["flipped"] == ("yes" if row["flipped"] else "no")
    assert told["suspicion"].startswith(f"{row['suspicion']:.3f}")


def test_what_several_classifiers_said_is_told_of_each_unless_one_is_named(here: Path) -> None:
    shutil.copytree(here / "out/predictions/bright", here / "out/predictions/other")
    text = show_sample(open_store(str(here / "out")), Wanted("000005"), pytest.fail)
    assert [line.split()[1] for line in text.splitlines() if line.startswith("classifier")] == ["bright", "other"]
    told, (note,) = shown(here / "out", classifier="other")
    assert told["classifier"] == "other"
    assert "by the answers of other" in note


def test_without_a_key_the_most_suspect_sample_is_shown_and_that_is_said(here: Path) -> None:
    told, (note,) = shown(here / "out")
    rows = [row for path in (here / "out/predictions").rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    most = max((row for row in rows if row["suspicion"] is not None), key=lambda row: row["suspicion"])
    assert (told["key"], told["shard"].split(",")[0]) == (most["key"], most["shard"])
    assert "the most suspect, by the answers of bright" in note


def test_without_suspicions_the_first_that_flipped_is_shown(here: Path) -> None:
    first = None
    for path in sorted((here / "out/predictions/bright").rglob("*.parquet")):
        table = pq.read_table(path)
        at = table.schema.get_field_index("suspicion")
        pq.write_table(table.set_column(at, table.schema.field(at), pa.nulls(len(table), pa.float32())), path)
        first = first or next((row["key"] for row in table.to_pylist() if row["flipped"]), None)
    told, (note,) = shown(here / "out")
    assert told["key"] == first is not None
    assert "no answer of bright has a suspicion" in note


def test_without_answers_any_purified_sample_is_shown(here: Path) -> None:
    shutil.rmtree(here / "out/predictions")
    told, (note,) = shown(here / "out", shard="a.tar")
    assert told["status"] == "ok"
    assert "no classifier was asked" in note
    assert "classifier" not in told


def test_a_key_in_two_shards_needs_its_shard(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"'000003': it is in 2 shards, a\.tar, cam/b\.tar.*--shard a\.tar"):
        shown(here / "out", key="000003")
    told, _ = shown(here / "out", key="000003", shard="cam/b.tar")
    assert told["shard"] == "cam/b.tar, sample 1 of 5"


def test_the_name_of_the_file_will_do_for_a_key(here: Path) -> None:
    assert shown(here / "out", key="000006.png")[0]["key"] == "000006"


def test_the_path_that_was_packed_will_do_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures/cat").mkdir(parents=True)
    (tmp_path / "pictures/cat/my.photo.v2.png").write_bytes(encoded(picture(1)))
    assert main(["pack", "pictures", "in"]) == 0
    run(job(tmp_path))
    told, _ = shown(tmp_path / "out", key="cat/my.photo.v2.png")
    assert told["key"] == "cat/my_photo_v2"
    assert told["label"] == "0 (cat)"


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        ({"key": "00006"}, "Did you mean '000006'?"),
        ({"key": "000006", "shard": "cam/a.tar"}, "Did you mean 'cam/b.tar'?"),
        ({"classifier": "brigth"}, "found bright"),
        ({"key": "000006", "to": "x.pdf"}, "ends in .png"),
        ({"key": "000006", "to": "nowhere/x.png"}, "No such file"),
    ],
)
def test_what_is_not_there_is_told_with_what_is_nearest(here: Path, wanted: dict[str, str], hint: str) -> None:
    with pytest.raises(ConfigError) as raised:
        shown(here / "out", **wanted)
    assert hint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_sample_that_was_not_purified_has_its_reason_in_place_of_a_picture(here: Path) -> None:
    told, _ = shown(here / "out", key="broken")
    assert told["status"].startswith("undecodable: ")
    assert told["picture"] == "none, since the sample is undecodable"
    assert not list(here.glob("*.png"))


def test_when_the_input_is_away_the_purified_image_is_shown_alone_and_that_is_said(here: Path, made: Path) -> None:
    away = made / "elsewhere"
    (made / "in").rename(away)
    try:
        told, (note,) = shown(here / "out", key="000001")
        assert "shows no received image" in note
        assert "--input PLACE" in note
        assert holds(here / told["picture"], 255 - picture(1))
        assert not holds(here / told["picture"], picture(1))
        told, notes = shown(here / "out", key="000001", input=str(away))
        assert notes == []
        assert holds(here / told["picture"], picture(1))
    finally:
        away.rename(made / "in")


def test_another_image_in_the_received_ones_place_is_not_shown_for_it(here: Path) -> None:
    write_tar(here / "moved/a.tar", samples(4, first=100))
    write_tar(here / "renumbered/a.tar", [[(f"{i:06d}.png", encoded(picture(50 + i)))] for i in range(4)])
    for moved, why in (("moved", "not found in its shard"), ("renumbered", "another image by now")):
        _, (note,) = shown(here / "out", key="000001", input=str(here / moved))
        assert f"{moved}/a.tar: {why}" in note


def test_a_large_image_is_reduced_and_a_key_becomes_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tar(tmp_path / "in/a.tar", [[("../x y/k.png", encoded(picture(1, 40, 2100)))]])
    run(job(tmp_path))
    told, _ = shown(tmp_path / "out", key="../x y/k")
    assert told["picture"] == "show-x_y_k.png"
    with Image.open(tmp_path / "show-x_y_k.png") as sheet:
        assert 2100 < sheet.width < 2300  # three panels of 700 px


def test_the_command_writes_to_a_folder_and_an_error_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "pictures").mkdir()
    assert main(["show", "out", "000000", "--to", "pictures"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("pictures/show-000000.png")
    assert main(["show", "in"]) == 2
    assert capsys.readouterr().err.startswith("zipstage: output")


def test_the_command_runs_in_a_process_that_has_loaded_nothing(here: Path) -> None:
    """Which it isn't here: what was imported in another order before hides a circle of imports."""
    command = [sys.executable, "-m", "jobs", "show", str(here / "out"), "000000", "--to", str(here)]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (here / "show-000000.png").exists()


@pytest.mark.s3
def test_a_sample_in_a_bucket_is_shown(s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tar(tmp_path / "a.tar", samples(3))
    s3.client.upload_file(str(tmp_path / "a.tar"), s3.name, "in/a.tar")
    run(job(tmp_path, input=f"{s3.uri}/in", output=f"{s3.uri}/out"))
    notes: list[str] = []
    show_sample(open_store(f"{s3.uri}/out"), Wanted("000002"), notes.append)
    assert notes == []
    assert holds(tmp_path / "show-000002.png", picture(2))
    s3.client.delete_object(Bucket=s3.name, Key="in/a.tar")
    show_sample(open_store(f"{s3.uri}/out"), Wanted("000002"), notes.append)
    assert "shows no received image" in notes[0]
    buffer = io.BytesIO((tmp_path / "show-000002.png").read_bytes())
    assert Image.open(buffer).format == "PNG"
