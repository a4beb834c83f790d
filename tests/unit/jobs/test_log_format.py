from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from inprocess import InProcess
from making import samples, write_tar

from jobs.commands import purify
from jobs.main import main


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purify, "ray_engine", lambda verbose: InProcess)


def told(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, list[dict[str, Any]]]:
    """Exit code, stdout, and the objects on stderr: each line must be one."""
    flags = ["--input", str(folder / "in"), "--output", str(folder / "out"), "--purifier.method", "none"]
    code = main(["purify", *flags, "--log-format", "json", *more])
    said = capsys.readouterr()
    return code, said.out, [json.loads(line) for line in said.err.splitlines()]


def test_a_job_tells_json_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "in/a.tar", samples(3))
    code, out, lines = told(tmp_path, capsys, "--run", "night")
    assert (code, out) == (0, "")
    assert {line["run"] for line in lines} == {"night"}
    assert (lines[0]["event"], lines[-1]["event"], lines[-1]["exit_code"]) == ("planned", "ended", 0)
    left = [json.loads(line) for line in (tmp_path / "out/runs/night/log.jsonl").read_text().splitlines()]

    def without_time(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {name: value for name, value in line.items() if name != "time"}
            for line in lines
            if line["event"] != "progress"
        ]

    assert without_time(left) == without_time(lines)


def test_a_run_without_a_name_has_one_name_in_all_its_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "in/a.tar", samples(3))
    _, _, lines = told(tmp_path, capsys)
    (run,) = (tmp_path / "out/runs").iterdir()
    assert {line["run"] for line in lines} == {run.name}


def test_what_ends_a_job_before_it_begins_is_told_in_json_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, lines = told(tmp_path, capsys)  # there is no input
    assert (code, out) == (2, "")
    (last,) = lines
    assert (last["event"], last["level"], last["exit_code"]) == ("ended", "error", 2)
    assert str(tmp_path / "in") in last["message"]


def test_an_interrupted_job_says_so_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(InProcess):
        def __enter__(self) -> Interrupted:
            raise KeyboardInterrupt

    monkeypatch.setattr(purify, "ray_engine", lambda verbose: Interrupted)
    write_tar(tmp_path / "in/a.tar", samples(3))
    code, _, lines = told(tmp_path, capsys)
    assert (code, lines[-1]["event"], lines[-1]["exit_code"]) == (130, "ended", 130)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.job.find_shards", interrupt)  # before there is a run that could end in order
    code, _, lines = told(tmp_path, capsys)
    assert (code, lines[-1]["event"], lines[-1]["exit_code"]) == (130, "ended", 130)


def test_the_format_may_come_from_the_environment_and_has_two_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "in/a.tar", samples(1))
    monkeypatch.setenv("ZIPSTAGE_LOG_FORMAT", "json")
    flags = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--purifier.method", "none"]
    assert main(["purify", *flags]) == 0
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["event"] == "ended"
    assert main(["purify", *flags, "--log-format", "xml"]) == 2
    assert "'text' or 'json', found 'xml'" in capsys.readouterr().err


def test_an_error_that_quotes_an_order_to_the_terminal_gives_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["purify", "--input", str(tmp_path / "in\x1b[2J\x07"), "--output", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "in\\x1b[2J\\x07" in line
    assert line.isprintable()
