"""KServe's model server as the black box, asked in JSON: with metadata and without, and every way to name it wrong."""

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
from foreign import Server, classifier, kserve, told, write_labels, zipstage

pytestmark = [pytest.mark.drill, pytest.mark.ray]

NORMALISED = {"mean": [0.5], "std": [0.5]}
JSON = {"binary": "false"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with kserve(tmp_path_factory.mktemp("kserve")) as found:
        yield found


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("signs", {"input": NORMALISED, "binary": False}),
        ("signs", {"input": NORMALISED}),
        ("signs-silent", {"input": {**NORMALISED, "size": 32, "name": "image"}, "binary": False}),
        ("signs-pixels", {"binary": False}),
        ("signs-pixels", {}),
        ("signs-files", {"labels": True, "binary": False}),
    ],
)
def test_each_datatype_and_output_is_answered_as_the_network_itself_does(
    server: Server, tmp_path: Path, model: str, fields: dict[str, Any]
) -> None:
    assert_answers_are_the_networks_own(server, model, tmp_path, fields)


def test_files_as_binary_data_break_the_server_down_and_the_way_out_is_named(server: Server) -> None:
    done = zipstage("probe", *classifier(server.url, "signs-files", input__size=32))
    told("files as binary data", done)
    assert done.returncode == 75
    assert "set classifier.binary to false" in done.stderr


def test_a_server_that_says_nothing_of_its_model_is_told_so(server: Server) -> None:
    done = zipstage("probe", *classifier(server.url, "signs-silent", **JSON))
    told("a model without metadata, and no input.size", done)
    assert done.returncode == 2
    assert "doesn't say what the model takes, so FP32 'input-0' was sent (NCHW): set classifier.input" in done.stderr


def test_probe_names_what_is_wrong(server: Server, tmp_path: Path) -> None:
    probe_what_is_wrong(server, write_labels(tmp_path), JSON)


def test_probe_shows_what_was_understood(server: Server, tmp_path: Path) -> None:
    probe_what_is_right(server, write_labels(tmp_path), tmp_path, JSON)


def test_a_job_is_purified_without_the_server_and_asked_about_once_it_is_there(server: Server, tmp_path: Path) -> None:
    purify_then_query(server, tmp_path, JSON)
