"""What is packed is what is unpacked, for every datatype, as binary data and as JSON."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.classifiers.tensors import DTYPES, HEADER_LENGTH, WireError, pack, unpack

NUMBERS = sorted(name for name in DTYPES if name != "BYTES")
SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)


def numbers(finite):
    def arrays(name):
        elements = {} if finite is False or DTYPES[name].kind != "f" else {"allow_nan": False, "allow_infinity": False}
        return hnp.arrays(DTYPES[name], SHAPES, elements=elements)

    return st.sampled_from(NUMBERS).flatmap(arrays)


def objects(items):
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


BYTES = st.lists(st.binary(max_size=12), max_size=5).map(objects)
TEXT = st.lists(st.text(max_size=8).map(str.encode), max_size=5).map(objects)


def returned(tensors, binary):
    body, headers = pack({"id": "7"}, "inputs", tensors, binary)
    fields, unpacked = unpack(body, headers.get(HEADER_LENGTH), "inputs")
    assert fields["id"] == "7"
    return unpacked


def assert_same(left, right):
    assert list(left) == list(right)
    for name in left:
        assert left[name].dtype == right[name].dtype
        assert left[name].shape == right[name].shape
        if left[name].dtype.kind == "O":
            assert left[name].tolist() == right[name].tolist()
        else:  # bit by bit: NaN and -0.0 too
            assert left[name].tobytes() == right[name].tobytes()


@settings(deadline=None, max_examples=80)
@given(st.dictionaries(NAMES, numbers(finite=False) | BYTES, max_size=3))
def test_binary_tensors_come_back_bit_by_bit(tensors):
    assert_same(returned(tensors, tensors), tensors)


@settings(deadline=None, max_examples=80)
@given(st.dictionaries(NAMES, numbers(finite=True) | TEXT, max_size=3))
def test_json_tensors_come_back_bit_by_bit(tensors):
    assert_same(returned(tensors, []), tensors)


@settings(deadline=None, max_examples=80)
@given(st.dictionaries(NAMES, BYTES, max_size=3))
def test_any_bytes_come_back_from_json_as_they_were(tensors):
    assert_same(returned(tensors, []), tensors)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(NAMES, numbers(finite=True) | BYTES, max_size=4), st.data())
def test_a_body_may_mix_both(tensors, data):
    binary = data.draw(st.sets(st.sampled_from(sorted(tensors)))) if tensors else set()
    assert_same(returned(tensors, binary), tensors)


@settings(deadline=None, max_examples=80)
@given(st.dictionaries(NAMES, numbers(finite=True) | BYTES, min_size=1, max_size=2), st.data())
def test_a_body_cut_anywhere_is_refused(tensors, data):
    body, headers = pack({}, "inputs", tensors, tensors)
    cut = data.draw(st.integers(0, len(body) - 1))
    try:
        unpack(body[:cut], headers.get(HEADER_LENGTH), "inputs")
    except WireError:
        return
    raise AssertionError(f"{cut} of {len(body)} bytes were read as a whole body")
