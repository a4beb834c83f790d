"""Help as people see it: a screen of a usual terminal, and examples that are true of the command."""

from __future__ import annotations

import pytest
from commandlines import check, command_lines

from jobs.main import _COMMANDS, build_app, main
from jobs.plain_help import columns

LINES, COLUMNS = 24, 80


def _commands() -> list[str]:
    """All there are, commands of commands too."""
    app = build_app()
    below = {name: [each for each in app[name] if not each.startswith("-")] for name in _COMMANDS}
    return [words for name, names in below.items() for words in (name, *(f"{name} {each}" for each in names))]


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))


def _help(command: str, *more: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([*command.split(), "--help", *more]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["", *_commands()])
def test_help_fits_a_screen_and_ends_with_examples_that_the_command_understands(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = _help(command, capsys=capsys)
    lines = text.splitlines()
    assert [line for line in lines if len(line) > COLUMNS] == []
    assert len(lines) <= LINES
    assert lines[0].startswith(f"Usage: zipstage {command}".rstrip())
    about, _, example = text.partition("Example:\n")
    assert len(about.split()) > 10
    shown = list(command_lines(example))
    assert shown
    assert any(line.startswith(f"zipstage {command}") for line in shown)
    for line in shown:
        check(line)


@pytest.mark.parametrize("command", _commands())
def test_verbose_help_keeps_to_the_width_and_shows_no_less(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    usual = _help(command, capsys=capsys)
    more = _help(command, "-v", capsys=capsys)
    assert [line for line in more.splitlines() if len(line) > COLUMNS] == []
    names = [line.split()[0] for line in usual.splitlines() if line.startswith("  --")]
    assert [name for name in names if f"\n  {name}" not in more] == []
    assert "with --help: all flags" not in usual or len(more) > len(usual)


@pytest.mark.parametrize("command", list(_COMMANDS))
def test_the_list_of_commands_has_a_line_for_each(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    about = _COMMANDS[command][1]
    (line,) = [line for line in _help("", capsys=capsys).splitlines() if line.split()[:1] == [command]]
    assert line.endswith(about)


def test_the_help_of_a_command_is_its_docstring_and_not_its_line_in_the_list(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "Exit code 1 when anything differs" in _help("verify", capsys=capsys)


def test_a_meaning_that_is_too_long_is_cut_between_clauses_and_keeps_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    rows = [
        ("--a", "one; two; three and four and five, and six and seven [7]"),
        ("--b", "short; and whole"),
        ("--c", "a " * 40),
    ]
    assert list(columns(rows, shortened=True))[:2] == [
        "  --a  one; two ... [7]",
        "  --b  short; and whole",
    ]
    assert all(len(line) <= 50 for line in columns(rows, shortened=True))
    assert " ".join(" ".join(columns(rows)).split()) == " ".join(f"{a} {b}".strip() for a, b in rows)
