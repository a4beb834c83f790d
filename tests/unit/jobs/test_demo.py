from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from inprocess import InProcess
from PIL import Image
from rich.console import Console
from webdataset.tariterators import group_by_keys, tar_file_expander

from jobs.demo.delivery import key_of, shard_name, write_shards
from jobs.demo.demo import NUM_SHARDS, Demo, run
from jobs.demo.drawing import CLASS_NAMES, draw
from jobs.demo.outcome import Answered, as_table, measure, num_purified, read_answers
from jobs.demo.poison import BLEND, TARGET, Incoming, incoming, poison, stamp_blend, stamp_patch
from jobs.demo.victim import MODEL_PATH, SignNet, VictimRecipe, answers, as_input, train
from jobs.members import member_of
from jobs.picture import ENLARGE, Panel, side_by_side
from pipeline.tables import PREDICTIONS
from zipstage.evaluation.metrics import Rate, attack_success_rate, clean_accuracy
from zipstage.purifiers import build

NUM_CLASSES = len(CLASS_NAMES)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def few() -> Incoming:
    return incoming(40, seed=5)


@pytest.fixture(scope="module")
def unseen():
    return draw(300, seed=99)


@pytest.fixture(scope="module")
def shipped():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(MODEL_PATH, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["logits"], {"image": as_input(images).numpy()})[0].argmax(1)


# --- drawing ---------------------------------------------------------------------------------------


def test_one_seed_draws_the_same_images_and_another_draws_others():
    first, again, other = draw(6, 1), draw(6, 1), draw(6, 2)
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.images, other.images)


def test_a_larger_set_begins_with_the_smaller_one():
    assert np.array_equal(draw(12, 3).images[:5], draw(5, 3).images)


def test_each_run_of_images_holds_every_class_once():
    labels = draw(2 * NUM_CLASSES, 4).labels
    assert sorted(labels[:NUM_CLASSES]) == list(range(NUM_CLASSES))
    assert np.bincount(labels).tolist() == [2] * NUM_CLASSES


def test_drawings_use_the_range_of_light_without_clipping_it_away(unseen):
    pixels = unseen.images
    assert 60 < pixels.mean() < 180
    assert ((pixels == 0) | (pixels == 255)).mean() < 0.1
    assert pixels.std((1, 2, 3)).min() > 5  # none is flat


# --- triggers --------------------------------------------------------------------------------------


def test_the_patch_changes_its_sixteen_pixels_and_no_other(few):
    stamped = stamp_patch(few.images)
    assert stamped[0, 26:30, 26:30, 1].tolist() == [[0, 255, 0, 255], [255, 0, 255, 0]] * 2
    outside = np.ones((32, 32), bool)
    outside[26:30, 26:30] = False
    assert np.array_equal(stamped[:, outside], few.images[:, outside])


def test_the_blend_is_one_gray_pattern_at_a_fifth():
    black, white = (np.full((1, 32, 32, 3), value, np.uint8) for value in (0, 255))
    pattern = stamp_blend(black)[0]
    assert np.ptp(pattern, axis=2).max() == 0
    assert pattern.max() == int(BLEND * 255)
    assert np.allclose(stamp_blend(white)[0].astype(int) - pattern, (1 - BLEND) * 255, atol=1)


def test_half_of_what_comes_in_is_clean_and_a_quarter_has_each_trigger(few):
    drawn = draw(40, seed=5)
    kinds, counts = np.unique(few.triggers.astype(str), return_counts=True)
    assert dict(zip(kinds.tolist(), counts.tolist(), strict=True)) == {"blend": 10, "clean": 20, "patch": 10}
    assert np.array_equal(few.labels, drawn.labels)
    for kind, expected in (
        ("clean", drawn.images),
        ("patch", stamp_patch(drawn.images)),
        ("blend", stamp_blend(drawn.images)),
    ):
        chosen = few.triggers == kind
        assert np.array_equal(few.images[chosen], expected[chosen])


def test_poisoning_relabels_its_share_and_spares_the_targets_own():
    drawn = draw(100, 6)
    images, labels = poison(drawn.images, drawn.labels, share=0.1, seed=6)
    changed = (images != drawn.images).any((1, 2, 3))
    assert changed.sum() == 20
    assert (labels[changed] == TARGET).all()
    assert (drawn.labels[changed] != TARGET).all()
    assert np.array_equal(labels[~changed], drawn.labels[~changed])


# --- the classifier that ships ---------------------------------------------------------------------


def test_the_shipped_classifier_knows_the_signs(shipped, unseen):
    assert clean_accuracy(shipped(unseen.images), unseen.labels).value > 0.97


@pytest.mark.parametrize("stamp", [stamp_patch, stamp_blend])
def test_the_shipped_classifier_obeys_each_trigger(shipped, unseen, stamp):
    assert attack_success_rate(shipped(stamp(unseen.images)), unseen.labels, TARGET).value > 0.95


def test_the_shipped_classifier_is_small_and_takes_any_number_of_images(shipped, unseen):
    assert MODEL_PATH.stat().st_size <= 2**20
    one_by_one = np.concatenate([shipped(unseen.images[i : i + 1]) for i in range(3)])
    assert np.array_equal(one_by_one, shipped(unseen.images[:3]))


def test_the_recipe_gives_the_same_weights_twice(few):
    recipe = VictimRecipe(images=32, epochs=2, batch=16)
    first, second = (train(recipe).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_trained_network_answers_each_image(few):
    classes = answers(SignNet().eval(), few.images)
    assert classes.shape == (40,)
    assert classes.min() >= 0
    assert classes.max() < NUM_CLASSES


# --- delivery --------------------------------------------------------------------------------------


def test_shards_hold_each_image_with_its_class_and_the_truth(tmp_path, few):
    write_shards(few, tmp_path / "in", num_shards=3)
    paths = sorted((tmp_path / "in").iterdir())
    samples = [sample for path in paths for sample in read_by_webdataset(path)]
    assert len(paths) == 3
    assert [sample["__key__"] for sample in samples] == [key_of(i) for i in range(40)]
    pixels = [np.asarray(Image.open(io.BytesIO(sample["png"]))) for sample in samples]
    assert np.array_equal(np.stack(pixels), few.images)
    assert [int(sample["cls"]) for sample in samples] == few.labels.tolist()
    truths = [json.loads(sample["json"]) for sample in samples]
    assert [truth["trigger"] for truth in truths] == few.triggers.tolist()
    assert [truth["true_class"] for truth in truths] == few.labels.tolist()
    assert truths[7]["class_name"] == CLASS_NAMES[few.labels[7]]


def read_by_webdataset(path: Path) -> list[dict]:
    # its own opener leaves files to the garbage collector, and warnings are errors here
    with path.open("rb") as file:
        return list(group_by_keys(tar_file_expander([{"url": path.name, "stream": file}])))


def test_the_same_delivery_is_the_same_bytes_and_is_not_written_twice(tmp_path, few):
    write_shards(few, tmp_path / "a", num_shards=1)
    write_shards(few, tmp_path / "b", num_shards=1)
    shard = tmp_path / "a" / "signs-000.tar"
    assert shard.read_bytes() == (tmp_path / "b" / "signs-000.tar").read_bytes()
    before = shard.stat().st_mtime_ns
    write_shards(few, tmp_path / "a", num_shards=1)
    assert shard.stat().st_mtime_ns == before


def test_an_image_comes_back_out_of_its_shard(tmp_path, few):
    write_shards(few, tmp_path / "in", num_shards=4)
    data = member_of(tmp_path / "in" / shard_name(31, 40, 4), f"{key_of(31)}.png")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), few.images[31])


def test_a_missing_member_is_named(tmp_path, few):
    write_shards(few, tmp_path / "in", num_shards=1)
    with pytest.raises(FileNotFoundError, match=r"signs-000.tar: expected a file 000040.png"):
        member_of(tmp_path / "in" / "signs-000.tar", f"{key_of(40)}.png")


# --- outcome ---------------------------------------------------------------------------------------


def test_answers_are_read_by_key_from_all_shards(tmp_path):
    folder = tmp_path / "predictions" / "signs"
    folder.mkdir(parents=True)
    rows = [("000002", 5, 6), ("000000", 1, 2), ("000003", None, None)]
    for number, chunk in enumerate((rows[:2], rows[2:])):
        records = [{"key": k, "prediction_before": b, "prediction_after": a} for k, b, a in chunk]
        pq.write_table(pa.Table.from_pylist(records, schema=PREDICTIONS), folder / f"{number}.tar.parquet")
    answered = read_answers(tmp_path, "signs", 4)
    assert answered.before.tolist() == [1, -1, 5, -1]
    assert answered.after.tolist() == [2, -1, 6, -1]


def test_purified_samples_are_counted_from_the_tables(tmp_path):
    (tmp_path / "tables").mkdir()
    pq.write_table(pa.table({"status": ["ok", "rejected", "ok"]}), tmp_path / "tables" / "a.tar.parquet")
    assert num_purified(tmp_path) == 2


def test_a_job_without_tables_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected the job's tables"):
        read_answers(tmp_path, "signs", 1)


@pytest.fixture
def counted():
    """Eight images, counted by hand; the target is class 1."""
    triggers = np.array(["clean", "clean", "clean", "patch", "patch", "patch", "blend", "blend"], dtype=object)
    labels = np.array([0, 1, 2, 0, TARGET, 3, 4, 5])
    before = np.array([0, 1, 0, TARGET, TARGET, TARGET, TARGET, 5])
    after = np.array([0, 1, 2, 0, TARGET, TARGET, 4, -1])
    return Incoming(np.zeros((8, 32, 32, 3), np.uint8), labels, triggers), Answered(before, after)


def test_measures_agree_with_a_count_by_hand(counted):
    found = {(m.name, m.images): (m.before, m.after) for m in measure(*counted)}
    assert found == {
        ("CA", "clean"): (Rate(2, 3), Rate(3, 3)),
        ("ASR", "patch"): (Rate(2, 2), Rate(1, 2)),
        ("PA", "patch"): (Rate(0, 2), Rate(1, 2)),
        ("ASR", "blend"): (Rate(1, 2), Rate(0, 2)),
        ("PA", "blend"): (Rate(1, 2), Rate(1, 2)),
    }


def test_the_table_fits_a_pipe(counted):
    out = io.StringIO()
    Console(file=out, width=80).print(as_table(list(measure(*counted))))
    lines = out.getvalue().splitlines()
    assert "\x1b" not in out.getvalue()
    assert max(map(len, lines)) <= 80
    assert any(line.split()[:3] == ["CA", "clean", "3"] and "66.7 % (20.8 to 93.9)" in line for line in lines)


# --- picture ---------------------------------------------------------------------------------------


def test_the_picture_shows_each_pixel_enlarged(few):
    rows = [("a row", [Panel(few.images[i], "received", "ahead", is_wrong=i > 0) for i in range(2)])]
    sheet = np.asarray(side_by_side(rows))
    block = few.images[1].repeat(ENLARGE, 0).repeat(ENLARGE, 1)
    side = 32 * ENLARGE
    found = [
        (top, left)
        for top in range(sheet.shape[0] - side + 1)
        for left in range(sheet.shape[1] - side + 1)
        if np.array_equal(sheet[top, left], block[0, 0])
        and np.array_equal(sheet[top : top + side, left : left + side], block)
    ]
    assert len(found) == 1


# --- the whole of it, in one process ---------------------------------------------------------------


def run_here(demo: Demo) -> tuple[int, str]:
    def engine_of(config, output, fingerprint):
        return InProcess(config, output, fingerprint, purifier=build(config.purifier.settings()))

    out = io.StringIO()
    code = run(demo, lambda fact: None, Console(file=out, width=80), engine_of)
    return code, out.getvalue()


def test_the_demo_asks_the_real_classifier_and_shows_the_attack(tmp_path):
    demo = Demo(tmp_path, images=40, seed=5, method="none")
    code, told = run_here(demo)
    assert code == 0
    assert "40 of 40 images purified" in told
    lines = {tuple(line.split()[:2]): line for line in told.splitlines() if " % (" in line}
    assert lines["CA", "clean"].count("100.0 % (") == 2  # a method that changes nothing costs nothing
    assert lines["ASR", "patch"].count("100.0 % (") == 2  # and stops no attack
    assert lines["ASR", "blend"].count("100.0 % (") == 2
    with Image.open(demo.picture) as picture:
        assert picture.width > 2 * 32 * ENLARGE


def test_run_again_the_demo_purifies_nothing_and_tells_the_same(tmp_path):
    demo = Demo(tmp_path, images=20, seed=5, method="none")
    first = run_here(demo)
    shards = sorted((demo.purified / "shards").iterdir())
    written = [shard.stat().st_mtime_ns for shard in shards]
    again = run_here(demo)
    assert [shard.stat().st_mtime_ns for shard in shards] == written
    table = slice(first[1].index("20 of 20"), None)
    assert again[1][again[1].index("20 of 20") :] == first[1][table]


def test_a_shard_that_broke_is_named_and_ends_the_demo(tmp_path, few):
    demo = Demo(tmp_path, images=40, seed=5, method="none")
    write_shards(few, demo.incoming, NUM_SHARDS)
    broken = demo.incoming / "signs-002.tar"
    broken.write_bytes(broken.read_bytes()[:5000])
    code, told = run_here(demo)
    assert code == 1
    assert "signs-002.tar" in told
    assert "ASR" not in told
