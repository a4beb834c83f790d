"""Laws of requests and replies of endpoints that no protocol describes: nothing is lost, nothing is guessed."""

from __future__ import annotations

import base64
import io
import json
from email.parser import BytesParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_json import pixels

from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers.bodies import BodyMaker, fill
from pipeline.classifiers.results import ResultReader
from pipeline.errors import ClassifierError

ENDPOINT = {"protocol": "json-http", "url": "http://127.0.0.1:9/score"}
LABELS = tuple("abcdefgh")

images = st.builds(
    lambda n, h, w, seed: np.random.default_rng(seed).integers(0, 256, (n, h, w, 3), np.uint8),
    st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32),
)  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=5), below, max_size=4),
    max_leaves=12,
)
scores = st.integers(2, 8).flatmap(
    lambda k: st.lists(
        st.lists(st.floats(0, 1, width=32), min_size=k, max_size=k, unique=True), min_size=1, max_size=5
    )
)  # fmt: skip


def maker(**fields: Any) -> BodyMaker:
    return BodyMaker(ClassifierConfig(**ENDPOINT, **fields), "it")


def reader(is_single: bool = False, **fields: Any) -> ResultReader:
    config = ClassifierConfig(**ENDPOINT, content="image", **fields)
    return ResultReader(config, "it", is_single, str)


@settings(max_examples=40)
@given(images)
def test_images_in_json_in_a_form_and_in_an_array_are_those_that_were_sent(batch: np.ndarray) -> None:
    body = maker(request={"a": [{"b": ["$image"]}]})(batch)
    sent = [pixels(base64.b64decode(one["b"][0])) for one in json.loads(body.data)["a"]]
    assert np.array_equal(np.stack(sent), batch)

    form = maker(content="multipart", request={"file": ["$image"], "k": 3})(batch)
    message = BytesParser().parsebytes(f"Content-Type: {form.content_type}\r\n\r\n".encode() + form.data)
    parts: list[Any] = list(message.get_payload())  # type: ignore[arg-type]
    files = [part.get_payload(decode=True) for part in parts if part.get_filename()]
    assert np.array_equal(np.stack([pixels(file) for file in files]), batch)
    assert len(parts) == len(batch) + 1

    array = maker(content="npy", input={"dtype": "uint8", "layout": "NHWC"})(batch)
    assert np.array_equal(np.load(io.BytesIO(array.data), allow_pickle=False), batch)

    numbers = maker(request={"a": ["$image"]}, input={"dtype": "uint8"})(batch)
    assert np.array_equal(np.array(json.loads(numbers.data)["a"]), batch.transpose(0, 3, 1, 2))


@given(json_values, st.integers(1, 4))
def test_a_template_without_an_image_stays_what_it_is(template: Any, count: int) -> None:
    text = json.dumps(template)
    if "$image" not in text and "$index" not in text:
        assert fill(template, ["x"] * count) == template


@given(scores)
def test_scores_come_as_they_were_answered(rows: list[list[float]]) -> None:
    answers = reader()(json.dumps(rows).encode(), "application/json", len(rows))
    assert answers.scores is not None
    assert np.array_equal(answers.scores, np.float32(rows))
    assert answers.classes.tolist() == [row.index(max(row)) for row in rows]


@given(scores, st.randoms(use_true_random=False))
def test_the_order_in_which_classes_are_named_changes_nothing(rows: list[list[float]], random: Any) -> None:
    plain = reader(labels=LABELS[: len(rows[0])])(json.dumps(rows).encode(), "application/json", len(rows))
    named = []
    for row in rows:
        pairs = list(zip(LABELS, row, strict=False))
        random.shuffle(pairs)
        named.append({"labels": [name for name, _ in pairs], "scores": [score for _, score in pairs]})
    mixed = reader(labels=LABELS[: len(rows[0])])(json.dumps(named).encode(), "application/json", len(rows))
    assert mixed.classes.tolist() == plain.classes.tolist()
    assert np.array_equal(mixed.scores, plain.scores)  # type: ignore[arg-type]


@given(st.lists(st.sampled_from(LABELS), min_size=1, max_size=5))
def test_a_name_is_its_place_in_labels(names: list[str]) -> None:
    answers = reader(labels=LABELS)(json.dumps(names).encode(), "application/json", len(names))
    assert answers.classes.tolist() == [LABELS.index(name) for name in names]


@settings(max_examples=200)
@given(json_values, st.integers(1, 3), st.booleans(), st.sampled_from([None, LABELS]))
def test_whatever_is_answered_is_an_answer_for_each_image_or_a_refusal(
    reply: Any, count: int, is_single: bool, labels: tuple[str, ...] | None
) -> None:
    count = 1 if is_single else count
    try:
        answers = reader(is_single, labels=labels)(json.dumps(reply).encode(), "application/json", count)
    except ClassifierError:
        return
    assert len(answers.classes) == len(answers.errors) == count
    for index, error in zip(answers.classes, answers.errors, strict=True):
        assert (index >= 0) == (error is None)


@given(st.binary(max_size=60), st.sampled_from(["application/json", "application/x-npy", ""]))
def test_bytes_that_are_no_reply_are_refused(body: bytes, content_type: str) -> None:
    try:
        answers = reader()(body, content_type, 2)
    except ClassifierError:
        return
    assert len(answers.classes) == 2


@given(scores)
def test_an_array_that_is_cut_or_claims_another_shape_is_refused(rows: list[list[float]]) -> None:
    file = io.BytesIO()
    np.save(file, np.float32(rows))
    whole = file.getvalue()
    assert reader()(whole, "application/x-npy", len(rows)).classes.tolist() == [row.index(max(row)) for row in rows]
    for broken in (whole[:-1], whole + b"\0", whole.replace(b"(", b"(9", 1)):
        with pytest.raises(ClassifierError, match="expected an array of numbers as"):
            reader()(broken, "application/x-npy", len(rows))
