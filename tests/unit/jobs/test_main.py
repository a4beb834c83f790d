from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import jobs.commands.verify
from jobs.main import main
from pipeline.errors import StoreAwayError
from pipeline.ledger import record_path


def fail(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `zipstage verify` meet an error."""

    def open_store(uri: str) -> None:
        raise error

    monkeypatch.setattr("pipeline.store.open_store", open_store)


COMMANDS = [
    "purify",
    "query",
    "plan",
    "probe",
    "pack",
    "show",
    "report",
    "verify",
    "clean",
    "demo",
    "serve",
    "bench",
    "prior import",
    "prior train",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_shows_an_example_of_it(command: str, capsys: pytest.CaptureFixture[str]):
    assert main([*command.split(), "--help"]) == 0
    _, _, example = capsys.readouterr().out.partition("Example:")
    assert f"zipstage {command} " in example


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command.split()[0] in text for command in COMMANDS)
    assert main(["prior", "--help"]) == 0
    assert "train" in capsys.readouterr().out


def test_help_waits_for_neither_torch_nor_ray():
    code = "import sys; from jobs.main import main; main(['purify', '--help'])"
    code += "; print({'torch', 'ray', 'pyarrow'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    "arguments", [["bogus"], ["verify"], ["verify", "a", "b"], ["serve", "x.onnx", "--port", "many"]]
)
def test_wrong_usage_is_2_and_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("zipstage: ")
    assert len(told.err.splitlines()) == 1


def test_names_too_many_are_counted_and_not_all_listed(capsys: pytest.CaptureFixture[str]):
    assert main(["pack", "in", "out", *(f"photos/{i}.jpg" for i in range(2000))]) == 2
    told = capsys.readouterr().err
    assert told.startswith("zipstage: pack: one name too many: 'photos/0.jpg' and 1,999 more.")
    assert len(told) < 200


def test_a_missing_name_is_called_as_the_help_calls_it(capsys: pytest.CaptureFixture[str]):
    assert main(["pack", "in"]) == 2
    assert "OUTPUT" in capsys.readouterr().err


def test_a_wrong_flag_is_2_and_names_the_nearest(capsys: pytest.CaptureFixture[str]):
    assert main(["purify", "--input", "a", "--output", "b", "--purifer.preset", "fast"]) == 2
    assert "Did you mean '--purifier.preset'?" in capsys.readouterr().err


def test_each_problem_of_a_config_is_a_line_of_its_own(capsys: pytest.CaptureFixture[str]):
    assert main(["purify"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("zipstage: ") for line in lines)


def test_an_error_told_on_purpose_has_its_exit_code_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    fail(StoreAwayError("s3://b/p: can't list: no answer. Try again later."), monkeypatch)
    assert main(["verify", "s3://b/p"]) == 75
    assert capsys.readouterr().err == "zipstage: s3://b/p: can't list: no answer. Try again later.\n"


def test_an_unexpected_error_is_one_line_that_says_it_is_a_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    fail(KeyError("x"), monkeypatch)
    assert main(["verify", "out"]) == 1
    told = capsys.readouterr().err
    assert "this is a bug in zipstage: KeyError: 'x'" in told
    assert "-v" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("flag", ["-v", "--verbose"])
def test_verbose_shows_the_traceback(flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    fail(KeyError("x"), monkeypatch)
    assert main(["verify", "out", flag]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    fail(KeyboardInterrupt(), monkeypatch)
    assert main(["verify", "out"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_sigterm_does_what_ctrl_c_does_and_the_handler_is_given_back(monkeypatch: pytest.MonkeyPatch):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("pipeline.store.open_store", lambda uri: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["verify", "out"]) == 130
    assert signal.getsignal(signal.SIGTERM) is before


def test_verify_of_nothing_says_what_it_expected(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["verify", str(tmp_path)]) == 2
    assert "expected records" in capsys.readouterr().err


def test_verify_names_what_differs_and_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / record_path("a.tar", "0123456789ab")
    path.parent.mkdir()
    path.write_text('{"outputs": {"shards/a.tar": {"size": 1, "sha256": "00"}}}')
    assert main(["verify", str(tmp_path)]) == 1
    assert "shards/a.tar: missing" in capsys.readouterr().out


def test_the_entry_points_are_the_same_command():
    done = subprocess.run([sys.executable, "-m", "jobs", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == __import__("zipstage").__version__
    assert jobs.commands.verify.verify_app.name == ("verify",)
