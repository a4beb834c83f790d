"""What goes wrong in a job, and what people get: nothing lost, nothing mixed, the right exit code."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from inprocess import InProcess, Inverting, run
from making import encoded, job, picture, samples, tree, write_tar
from PIL import Image

from jobs.serve import application, load_network, running
from pipeline import job as main_path
from pipeline.errors import ClassifierError, ConfigError
from pipeline.store import open_store
from pipeline.verify import verify
from zipstage.tiles import Tiles


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / "out" / "tables" / f"{name}.parquet").to_pylist()


def classifier_file(path: Path, size: int = 32, classes: int = 2) -> Path:
    """An ONNX classifier: class 1 when the image is bright, else 0; scores are the mean and its negative."""
    weights = np.array([[-1.0, 1.0]] * 3, np.float32) @ np.eye(2, classes, dtype=np.float32)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
            onnx.helper.make_node("Flatten", ["mean"], ["flat"]),
            onnx.helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
        ],
        "bright",
        [onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["n", 3, size, size])],
        [onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["n", classes])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def asking(path: Path, name: str = "bright") -> dict[str, Any]:
    return {
        "classifier__protocol": "onnx",
        "classifier__path": str(path),
        "classifier__name": name,
        "classifier__input__mean": [0.5],
        "classifier__input__std": [0.5],
    }


class Failing(Inverting):
    """Raises on the part that holds a cell of one colour."""

    def purify(self, tiles: Tiles) -> Tiles:
        if any(len(np.unique(cell)) == 1 for cell in tiles.cells()):
            raise RuntimeError("out of memory")
        return super().purify(tiles)


def test_each_received_sample_has_one_row_and_each_purified_one_is_there_once(tmp_path: Path) -> None:
    odd = [
        [("bad.jpg", b"no image"), ("bad.cls", b"3")],
        [("two.png", encoded(picture(1))), ("two.jpg", encoded(picture(1), "JPEG"))],
        [("none.txt", b"text alone")],
        [("a.b.seg.png", encoded(picture(2)))],
    ]
    write_tar(tmp_path / "in/x.tar", [*samples(3), *odd, *samples(2, 50, 300, 40)])
    summary, _ = run(job(tmp_path))
    assert summary.exit_code == 0
    found = rows(tmp_path, "x.tar")
    assert [row["index"] for row in found] == list(range(9))
    assert [row["status"] for row in found] == ["ok"] * 3 + ["undecodable"] + ["rejected"] * 3 + ["ok"] * 2
    assert found[3]["label"] == 3
    assert "found .png, .jpg" in found[4]["error"]
    assert verify(open_store(str(tmp_path / "out"))).findings == []


def test_pixels_alpha_and_profile_come_back_in_the_received_size(tmp_path: Path) -> None:
    pixels = np.dstack([picture(3, 41, 301), np.full((41, 301), 77, np.uint8)])
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(file, "PNG")
    write_tar(tmp_path / "in/x.tar", [[("k.png", file.getvalue()), ("k.json", b'{"label": 5}')]])
    run(job(tmp_path))
    with tarfile.open(tmp_path / "out/shards/x.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    after = np.asarray(Image.open(io.BytesIO(members["k.png"])))
    assert members["k.json"] == b'{"label": 5}'
    assert np.array_equal(after[..., 3], pixels[..., 3])
    assert np.array_equal(after[..., :3], 255 - pixels[..., :3])
    assert rows(tmp_path, "x.tar")[0]["label"] == 5


def test_a_broken_shard_fails_by_name_and_the_others_are_committed(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "in/good.tar", samples(3))
    (tmp_path / "in/cut.tar").write_bytes(whole.read_bytes()[:2000])
    summary, _ = run(job(tmp_path))
    assert summary.exit_code == 1
    assert summary.committed == ["good.tar"]
    assert "cut.tar" in summary.failed["cut.tar"]
    assert not (tmp_path / "out/shards/cut.tar").exists()


def test_a_part_that_the_purifier_cant_do_fails_its_shard_alone(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/bad.tar", [[("k.png", encoded(np.zeros((32, 32, 3), np.uint8)))]])
    write_tar(tmp_path / "in/good.tar", samples(3))
    summary, _ = run(job(tmp_path), purifier=Failing())
    assert summary.exit_code == 1
    assert summary.committed == ["good.tar"]
    assert "RuntimeError: out of memory" in summary.failed["bad.tar"]


def test_an_input_replaced_between_two_runs_is_refused_by_name_unless_overwritten(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(3))
    write_tar(tmp_path / "in/b.tar", samples(3, 10))
    run(job(tmp_path))
    before = tree(tmp_path / "out", "shards", "tables", "records")
    write_tar(tmp_path / "in/a.tar", samples(4, 20))
    refused, _ = run(job(tmp_path))
    assert refused.exit_code == 1
    assert "a.tar" in refused.failed["a.tar"]
    assert "--overwrite" in refused.failed["a.tar"]
    assert tree(tmp_path / "out", "shards", "tables", "records") == before

    replaced, _ = run(job(tmp_path, overwrite=True))
    assert replaced.exit_code == 0
    assert [row["key"] for row in rows(tmp_path, "a.tar")] == [f"{i:06d}" for i in range(20, 24)]
    assert len(list((tmp_path / "out/records").glob("a.tar.*"))) == 1
    assert verify(open_store(str(tmp_path / "out"))).findings == []


def test_an_input_replaced_after_it_was_listed_is_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "in/a.tar", samples(3))
    plan = main_path.ledger.make_plan

    def replaced_right_after(*arguments: Any) -> Any:
        planned = plan(*arguments)
        write_tar(tmp_path / "in/a.tar", samples(4, 20))
        return planned

    monkeypatch.setattr(main_path.ledger, "make_plan", replaced_right_after)
    summary, _ = run(job(tmp_path))
    assert summary.exit_code == 1
    assert "a.tar" in summary.failed["a.tar"]
    assert tree(tmp_path / "out", "shards", "tables", "records", "_staging") == {}


def test_other_part_settings_between_two_runs_mix_nothing(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(6, 0, 200, 200))
    whole = tmp_path / "whole"
    run(job(whole, input=str(tmp_path / "in"), part__tiles=3))

    class Interrupting(Inverting):
        def purify(self, tiles: Tiles) -> Tiles:
            if self.cells >= 4:
                raise KeyboardInterrupt
            return super().purify(tiles)

    interrupted, _ = run(job(tmp_path, part__tiles=2), purifier=Interrupting())
    assert interrupted.exit_code == 130
    assert len(tree(tmp_path / "out", "_staging")) == 2
    summary, engine = run(job(tmp_path, part__tiles=3))
    assert summary.exit_code == 0
    assert engine is not None
    assert sorted(engine.purified.values()) == [1, 1]
    assert tree(tmp_path / "out", "shards", "_staging") == tree(whole / "out", "shards", "_staging")


def test_a_rerun_reuses_what_is_staged(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(6, 0, 200, 200))

    class Interrupting(Inverting):
        def purify(self, tiles: Tiles) -> Tiles:
            if self.cells >= 4:
                raise KeyboardInterrupt
            return super().purify(tiles)

    run(job(tmp_path, part__tiles=2), purifier=Interrupting())
    summary, engine = run(job(tmp_path, part__tiles=2))
    assert engine is not None
    assert engine.purifier.cells == 2
    assert summary.parts == {"reused": 2, "staged": 1}


def test_other_settings_are_refused_by_field_and_overwriting_doesnt_help(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(2))
    run(job(tmp_path))
    for more in ({}, {"overwrite": True}):
        with pytest.raises(ConfigError, match=r'encoding.format was "png", is "webp"') as raised:
            run(job(tmp_path, encoding__format="webp", **more))
        assert raised.value.exit_code == 2


def test_overwriting_with_the_same_settings_gives_the_same_bytes_and_asks_anew(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(5))
    fields = asking(classifier_file(tmp_path / "bright.onnx"))
    run(job(tmp_path, **fields))
    before = tree(tmp_path / "out", "shards", "tables", "records", "predictions", "_staging")
    summary, engine = run(job(tmp_path, overwrite=True, **fields))
    assert engine is not None
    assert engine.purifier.cells == 5
    assert summary.asked == ["a.tar"]
    assert tree(tmp_path / "out", "shards", "tables", "records", "predictions", "_staging") == before


def test_answers_before_and_after_stand_beside_each_sample(tmp_path: Path) -> None:
    dark, bright = np.full((32, 32, 3), 10, np.uint8), np.full((32, 32, 3), 250, np.uint8)
    dark[0, 0], bright[0, 0] = 0, 255
    groups = [[("d.png", encoded(dark))], [("x.png", b"bad")], [("b.png", encoded(bright)), ("b.cls", b"1")]]
    write_tar(tmp_path / "in/a.tar", groups)
    run(job(tmp_path, **asking(classifier_file(tmp_path / "bright.onnx"))))
    answers = pq.read_table(tmp_path / "out/predictions/bright/a.tar.parquet").to_pylist()
    assert [(r["key"], r["status"], r["prediction_before"], r["prediction_after"], r["flipped"]) for r in answers] == [
        ("d", "ok", 0, 1, True),
        ("x", "undecodable", None, None, None),
        ("b", "ok", 1, 0, True),
    ]
    assert answers[0]["scores_before"][0]["class"] == 0
    assert 0.9 < answers[0]["suspicion"] <= 1


def test_a_second_classifier_is_asked_and_nothing_is_purified(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(5))
    file = classifier_file(tmp_path / "bright.onnx")
    run(job(tmp_path, **asking(file, "first")))
    engines = []

    def engine_of(*arguments: Any) -> Any:
        engines.append(InProcess(*arguments))
        return engines[0]

    summary = main_path.query(job(tmp_path, **asking(file, "second")), lambda fact: None, engine_of, run="test")
    assert summary.asked == ["a.tar"]
    assert engines[0].purified == {}
    first, second = (pq.read_table(tmp_path / f"out/predictions/{n}/a.tar.parquet") for n in ("first", "second"))
    assert first.equals(second)


def test_a_classifier_that_is_away_leaves_the_shards_committed_and_the_rerun_only_asks(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(5))
    network = load_network(classifier_file(tmp_path / "bright.onnx"))
    with running(application(network, "bright")) as url:
        pass  # a port that nobody listens on any more
    fields = {"classifier__protocol": "open-inference-v2", "classifier__model": "bright", "classifier__attempts": 1}
    summary, _ = run(job(tmp_path, classifier__url=url, classifier__name="v2", **fields))
    assert summary.exit_code == 75
    assert summary.committed == ["a.tar"]
    assert url.removeprefix("http://") in summary.unanswered["a.tar"]

    with running(application(network, "bright")) as url:
        rerun, engine = run(job(tmp_path, classifier__url=url, classifier__name="v2", **fields))
    assert rerun.exit_code == 0
    assert rerun.asked == ["a.tar"]
    assert engine is not None
    assert engine.purified == {}


def test_an_input_size_that_the_classifier_refuses_ends_the_job_before_it_begins(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(2))
    fields = asking(classifier_file(tmp_path / "bright.onnx", size=64))
    with pytest.raises(ClassifierError, match="64") as raised:
        run(job(tmp_path, classifier__input__size=32, **fields))
    assert raised.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_limit_takes_the_first_shards_only(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_tar(tmp_path / f"in/{name}.tar", samples(1))
    summary, _ = run(job(tmp_path, limit=2))
    assert summary.committed == ["a.tar", "b.tar"]


def test_an_output_inside_the_input_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(1))
    with pytest.raises(ConfigError, match="lies inside the input"):
        run(job(tmp_path, output=str(tmp_path / "in/purified")))


def test_a_missing_and_an_empty_input_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("nowhere", "empty"):
        with pytest.raises(ConfigError, match=name) as raised:
            run(job(tmp_path, input=str(tmp_path / name)))
        assert "\n" not in str(raised.value)


def test_an_empty_shard_and_a_gzip_shard_are_committed(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/empty.tar", [])
    write_tar(tmp_path / "in/packed.tar.gz", samples(2), "w:gz")
    summary, _ = run(job(tmp_path))
    assert summary.exit_code == 0
    assert rows(tmp_path, "empty.tar") == []
    assert len(rows(tmp_path, "packed.tar.gz")) == 2
    assert (tmp_path / "out/shards/packed.tar.gz").read_bytes()[:2] == b"\x1f\x8b"


def test_the_received_shards_are_never_written_to(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", samples(2))
    copy = shutil.copytree(tmp_path / "in", tmp_path / "copy")
    run(job(tmp_path))
    assert tree(tmp_path, "in").values() != {}
    assert (tmp_path / "in/a.tar").read_bytes() == (copy / "a.tar").read_bytes()
