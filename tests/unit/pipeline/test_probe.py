from __future__ import annotations

import asyncio
import io
from pathlib import Path

import numpy as np
import pytest
from making import encoded, job, picture, samples, write_tar
from PIL import Image as Pillow

from pipeline.classifiers.base import Answers
from pipeline.probe import NO_INPUT, Image, Reply, ask_each, choose_images, doubts, drawn, kind_of_scores


def config(folder: Path, **fields):
    return job(folder, classifier__protocol="onnx", classifier__path="x.onnx", **fields)


def reply(*scores: float) -> Reply:
    found = np.array([scores], np.float32)
    return Reply(Image("x", picture(0)), Answers(found.argmax(1), found, [None]), 1.0)


def test_the_third_image_is_the_first_of_the_jobs_own(tmp_path: Path):
    write_tar(tmp_path / "in" / "cam1" / "000000.tar", samples(2, 5, 20, 30))
    chosen, why = choose_images(config(tmp_path))
    assert why is None
    assert [image.name for image in chosen[:2]] == ["drawn: a red disc on blue", "drawn: a colour gradient"]
    assert chosen[2].name == "cam1/000000.tar: 000005"
    np.testing.assert_array_equal(chosen[2].pixels, picture(5, 20, 30))
    assert {image.pixels.shape for image in chosen} == {(20, 30, 3)}


def test_samples_that_hold_no_image_are_passed_over(tmp_path: Path):
    broken = [[("a.png", b"no image")], [("b.txt", b"no image at all")]]
    write_tar(tmp_path / "in" / "000000.tar", [*broken, [("c.jpg", encoded(picture(1), "JPEG"))]])
    chosen, _ = choose_images(config(tmp_path))
    assert chosen[2].name == "000000.tar: c"


def test_of_a_large_shard_only_the_beginning_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipeline.probe._HEAD_MIB", 1)
    rest = [(f"{i}.bin", bytes(1 << 20)) for i in range(3)]
    write_tar(tmp_path / "in" / "000000.tar", [*samples(1), *[[member] for member in rest]])
    chosen, why = choose_images(config(tmp_path))
    assert (chosen[2].name, why) == ("000000.tar: 000000", None)


@pytest.mark.parametrize(
    ("fields", "members", "said"),
    [
        ({"input": NO_INPUT}, None, "names no input"),
        ({"input": "/nowhere"}, None, "/nowhere"),
        ({}, [[("a.txt", b"no image")]], "expected an image that can be decoded"),
    ],
)
def test_without_an_image_of_the_jobs_own_a_third_one_is_drawn_and_why_is_said(tmp_path: Path, fields, members, said):
    if members is not None:
        write_tar(tmp_path / "in" / "000000.tar", members)
    chosen, why = choose_images(config(tmp_path, classifier__input__size=[24, 40], **fields))
    assert said in str(why)
    assert [image.name.partition(":")[0] for image in chosen] == ["drawn"] * 3
    assert {image.pixels.shape for image in chosen} == {(24, 40, 3)}


def test_a_shard_that_breaks_off_before_its_first_image_costs_only_that_image(tmp_path: Path):
    whole = write_tar(tmp_path / "in" / "000000.tar", samples(1, 0, 200, 200))
    whole.write_bytes(whole.read_bytes()[:1000])
    chosen, why = choose_images(config(tmp_path))
    assert "000000.tar" in str(why)
    assert len(chosen) == 3


def test_drawn_images_differ_are_of_any_size_and_the_same_each_time():
    for height, width in ((1, 1), (7, 300), (32, 32)):
        images = drawn(height, width, 3)
        assert {image.pixels.shape for image in images} == {(height, width, 3)}
        assert {image.pixels.dtype for image in images} == {np.dtype(np.uint8)}
        for first, second in zip(images, drawn(height, width, 3), strict=True):
            np.testing.assert_array_equal(first.pixels, second.pixels)
    assert len({image.pixels.tobytes() for image in drawn(32, 32, 3)}) == 3
    file = io.BytesIO()
    Pillow.fromarray(drawn(32, 32, 1)[0].pixels).save(file, "PNG")


def test_each_image_is_a_request_of_its_own():
    asked = []

    class Echo:
        async def predict(self, images):
            asked.append(images.shape)
            return Answers(np.array([7]), None, [None])

    async def all_of(chosen):
        return [one async for one in ask_each(Echo(), chosen)]

    replies = asyncio.run(all_of(drawn(8, 8, 3)))
    assert asked == [(1, 8, 8, 3)] * 3
    assert [int(one.answers.classes[0]) for one in replies] == [7, 7, 7]
    assert all(one.latency_ms >= 0 and one.scores is None for one in replies)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([[0.1, 0.9], [0.5, 0.5]], "probabilities (they add up to 1)"),
        ([[0.9, 0.8], [0.1, 0.2]], "between 0 and 1 but adding up to 1.7, as of a sigmoid"),
        ([[-3.0, 2.0], [0.5, 0.5]], "logits (from -3 to 2)"),
        ([[12.0, 2.0]], "logits (from 2 to 12)"),
    ],
)
def test_probabilities_are_told_apart_from_logits(rows, said):
    assert kind_of_scores([np.array(row) for row in rows]).startswith(said)


def test_the_same_scores_for_all_images_are_doubted():
    (doubt,) = doubts([reply(0.5, 0.25), reply(0.5, 0.25), reply(0.5, 0.25)])
    assert "classifier.input" in doubt
    assert list(doubts([reply(0.5, 0.25), reply(0.25, 0.5)])) == []
    assert list(doubts([reply(0.5, 0.25)])) == []
