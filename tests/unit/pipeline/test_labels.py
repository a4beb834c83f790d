"""`classifier.labels`: a list, or a file that is read where the config is, since a worker has no such file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import JobConfig
from pipeline.config_loading import load_config
from pipeline.errors import ConfigError


def job(labels: Any) -> JobConfig:
    classifier = {"protocol": "onnx", "path": "x.onnx", "labels": labels}
    return load_config(None, {"input": "in", "output": "out", "classifier": classifier})


def labels_of(config: JobConfig) -> tuple[str, ...] | None:
    assert config.classifier is not None
    return config.classifier.labels


@pytest.mark.parametrize("text", ["stop\nyield\n", "stop\r\nyield", "\ufeffstop\nyield\n"])
def test_a_file_has_a_name_a_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(text.encode())
    config = job(str(path))
    path.unlink()
    assert labels_of(config) == ("stop", "yield")
    assert labels_of(JobConfig.model_validate(config.model_dump(mode="json"))) == ("stop", "yield")


def test_a_list_is_taken_as_it_stands() -> None:
    assert labels_of(job(["stop", "give way"])) == ("stop", "give way")
    assert labels_of(job(None)) is None


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("/nowhere/labels.txt", r"/nowhere/labels\.txt can't be read: No such file"),
        (["stop"], "expected 2 names or more, none of them empty, found 1"),
        (["stop", ""], "none of them empty, found 2, or an empty one"),
        ([1, 2], r"classifier\.labels\.0"),
    ],
)
def test_labels_that_are_none_are_named(labels: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        job(labels)


def test_a_file_of_other_bytes_is_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.bin"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"labels\.bin in UTF-8, found other bytes"):
        job(str(path))


def test_defaults_are_under_the_file_and_the_flags(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("input: in\n")
    config = load_config(path, {"limit": 3}, None, {"input": "x", "output": "y", "limit": 4})
    assert (config.input, config.output, config.limit) == (("in",), "y", 3)
