from __future__ import annotations

import re

import numpy as np
import pytest

from pipeline.classifiers.outputs import choose_output, read_answers
from pipeline.errors import ClassifierError

SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_scores_answer_with_the_largest(dtype):
    answers = read_answers(SCORES.astype(dtype), 2, 2, "x")
    assert answers.classes.tolist() == [1, 0]
    assert answers.classes.dtype == np.int64
    assert answers.scores.dtype == np.float32
    np.testing.assert_allclose(answers.scores, SCORES, atol=1e-3)
    assert answers.errors == [None, None]


def test_eight_bit_scores_and_pooled_ones_are_scores_too():
    quantised = (SCORES * 255).astype(np.uint8).reshape(2, 3, 1, 1)
    assert read_answers(quantised, 2, 2, "x").classes.tolist() == [1, 0]


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_whole_numbers_are_classes_without_scores(shape):
    answers = read_answers(np.array([7, 3]).reshape(shape), 2, 2, "x")
    assert answers.classes.tolist() == [7, 3]
    assert answers.scores is None


def test_bytes_hold_an_index_or_a_ranking_with_the_best_first():
    ranked = np.array([[b"0.9:4:stop", b"0.1:2:yield"], [b"0.5:0", b"0.2:1"]], dtype=object)
    assert read_answers(ranked, 2, 2, "x").classes.tolist() == [4, 0]
    assert read_answers(np.array([b"12", b"3"], dtype=object), 2, 2, "x").classes.tolist() == [12, 3]


def test_rows_that_filled_a_fixed_batch_are_dropped():
    answers = read_answers(SCORES, 1, 2, "x")
    assert answers.classes.tolist() == [1]
    assert answers.scores.shape == (1, 3)
    assert answers.errors == [None]


def test_nan_and_endless_scores_are_errors_of_their_images_alone():
    scores = np.array([[np.nan, 1], [0, np.inf], [-np.inf, 0], [-np.inf, -np.inf], [2, 1]])
    answers = read_answers(scores, 5, 5, "x")
    assert answers.classes.tolist() == [-1, -1, 1, -1, 0]
    assert [error is None for error in answers.errors] == [False, False, True, False, True]


def test_a_negative_class_is_no_answer():
    answers = read_answers(np.array([-5, 2]), 2, 2, "x")
    assert answers.classes.tolist() == [-1, 2]
    assert "-5" in answers.errors[0]


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (np.zeros((3, 4)), "expected 2 answers for 2 images, found shape"),
        (np.float32(1), "expected 2 answers"),
        (np.zeros((2, 1)), "found FP64"),
        (np.zeros((2, 3), np.int64), "found INT64"),
        (np.zeros((2, 3, 4)), "found FP64"),
        (np.array([b"stop", b"yield"], dtype=object), "expected a class index or score:index:label, found 'stop'"),
        (np.array([[b"3", b"1"], [b"2", b"0"]], dtype=object), "expected one class an image, .* found 2 texts"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(output, said):
    with pytest.raises(ClassifierError, match=said):
        read_answers(output, 2, 2, "x")


def test_the_output_is_the_one_set_or_the_first():
    assert choose_output(None, ["a", "b"], "x") == "a"
    assert choose_output("b", ["a", "b"], "x") == "b"
    assert choose_output("b", [], "x") == "b"
    with pytest.raises(ClassifierError, match="Did you mean 'scores'"):
        choose_output("score", ["scores", "class"], "x")


NAMES = ("stop", "yield", "7", "crane", "crane")


def texts(*found):
    array = np.empty(len(found), dtype=object)
    array[:] = found
    return array


def test_names_of_classes_are_their_places_among_the_labels():
    answers = read_answers(texts(b"yield", b"stop"), 2, 2, "x", NAMES)
    assert answers.classes.tolist() == [1, 0]
    assert answers.scores is None
    assert answers.errors == [None, None]


def test_a_name_of_digits_is_a_name_and_other_digits_are_an_index():
    assert read_answers(texts(b"7", b"3", b"0.9:1:yield"), 3, 3, "x", NAMES).classes.tolist() == [2, 3, 1]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"stpo", r"'stpo', which is none of the 5 labels. Did you mean 'stop'\?"),
        (b"crane", "'crane', a name that 2 of the labels have"),
        (b"5", "index is 5, and the labels name 5 classes"),
        (b"\xff\x1b[31m", "none of the 5 labels"),
    ],
)
def test_a_name_that_is_no_class_is_an_error_of_its_image_alone(said, why):
    answers = read_answers(texts(said, b"stop"), 2, 2, "x", NAMES)
    assert answers.classes.tolist() == [-1, 0]
    assert re.search(why, answers.errors[0])
    assert answers.errors[0].isprintable()
    assert answers.errors[1] is None


def test_an_index_beyond_the_labels_is_no_answer():
    answers = read_answers(np.array([4, 5]), 2, 2, "x", NAMES)
    assert answers.classes.tolist() == [4, -1]
    assert "the labels name 5 classes" in answers.errors[1]


def test_scores_of_another_number_of_classes_than_labels_are_refused():
    with pytest.raises(ClassifierError, match="of the 5 classes that the labels name, found 3 scores"):
        read_answers(SCORES, 2, 2, "x", NAMES)
    assert read_answers(SCORES, 2, 2, "x", NAMES[:3]).classes.tolist() == [1, 0]


def test_what_came_is_told_by_datatype_and_shape():
    assert read_answers(SCORES, 1, 2, "x").came == "FP64 [2, 3]"
    assert read_answers(texts(b"1"), 1, 1, "x").came == "BYTES [1]"
