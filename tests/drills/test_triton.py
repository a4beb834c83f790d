"""NVIDIA's Triton as the black box: floats, pixels and files as binary tensors, and every way to name it wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from askings import (
    assert_answers_are_the_networks_own,
    probe_what_is_right,
    probe_what_is_wrong,
    purify_then_query,
)
from foreign import Server, triton, write_labels

pytestmark = [pytest.mark.drill, pytest.mark.ray]

NORMALISED = {"mean": [0.5], "std": [0.5]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with triton(tmp_path_factory.mktemp("triton")) as found:
        yield found


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("signs", {"input": NORMALISED}),
        ("signs", {"input": NORMALISED, "binary": False}),
        ("signs", {"input": {**NORMALISED, "size": 32, "layout": "NCHW", "dtype": "float32"}, "version": "1"}),
        ("signs-pixels", {}),
        ("signs-pixels", {"output": "logits", "input": {"layout": "NHWC", "dtype": "uint8"}}),
        ("signs-pixels", {"binary": False, "output": "logits"}),
        ("signs-files", {"labels": True}),
        ("signs-files", {"output": "logits", "input": {"dtype": "bytes"}}),
    ],
)
def test_each_datatype_and_output_is_answered_as_the_network_itself_does(
    server: Server, tmp_path: Path, model: str, fields: dict[str, Any]
) -> None:
    assert_answers_are_the_networks_own(server, model, tmp_path, fields)


def test_probe_names_what_is_wrong(server: Server, tmp_path: Path) -> None:
    probe_what_is_wrong(server, write_labels(tmp_path), {})


def test_probe_shows_what_was_understood(server: Server, tmp_path: Path) -> None:
    probe_what_is_right(server, write_labels(tmp_path), tmp_path, {})


def test_a_job_is_purified_without_the_server_and_asked_about_once_it_is_there(server: Server, tmp_path: Path) -> None:
    purify_then_query(server, tmp_path, {})  # its 40 images are more than the 16 that Triton takes at once
