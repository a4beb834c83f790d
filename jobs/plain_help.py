"""How help looks: plain lines in the width of the terminal, names on the left, what they mean beside them.

Loads neither pydantic nor torch, since every command has it: cyclopts renders with `PlainHelp`, and
`jobs.help` writes the help of commands that take a job with the same `columns`.
"""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts import App
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

MIN_WIDTH, MAX_WIDTH = 50, 110
MAX_COLUMN = 30
"""Where descriptions begin at most; a longer name gets a line of its own."""


def width() -> int:
    """Characters in a line of help."""
    return max(MIN_WIDTH, min(shutil.get_terminal_size().columns, MAX_WIDTH))


def filled(text: str) -> str:
    """A text in lines of that width, its paragraphs kept apart."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(textwrap.fill(" ".join(one.split()), width(), break_on_hyphens=False) for one in paragraphs)


def columns(rows: Iterable[tuple[str, str]], *, shortened: bool = False) -> Iterator[str]:
    """Names, and what each means in a column of its own.

    Args:
        rows: Names and meanings.
        shortened: Whether a meaning that needs more than a line is cut, with dots for the rest.
    """
    rows = list(rows)
    column = min(MAX_COLUMN, max((len(name) for name, _ in rows), default=0) + 4)
    for name, meaning in rows:
        first, room = f"  {name}".ljust(column), width() - column
        lines = [_cut(meaning, room)] if shortened else textwrap.wrap(meaning, room, break_on_hyphens=False)
        if len(first) > column or first[-1] != " " or not lines:
            yield first.rstrip()
            first = " " * column
        for line in lines:
            yield f"{first}{line}"
            first = " " * column


def _cut(meaning: str, room: int) -> str:
    """As much of a meaning as a line holds, whole clauses where that goes; its default, at the end, stays."""
    text, bracket, default = meaning.rpartition(" [")
    if not bracket or not default.endswith("]"):
        text, bracket, default = meaning, "", ""
    room -= len(bracket + default)
    clauses = text.split("; ")
    fitting = [text] + ["; ".join(clauses[:count]) + " ..." for count in range(len(clauses) - 1, 0, -1)]
    whole = next((part for part in fitting if len(part) <= room), None)
    return (whole or textwrap.shorten(text, room, placeholder=" ...")) + bracket + default


class PlainHelp:
    """What cyclopts shows of a command: its usage, its docstring, its flags.

    Args:
        of: The command; none: what it is registered with stands in place of its docstring.
    """

    def __init__(self, of: App | None = None) -> None:
        self._of = of

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:  # noqa: ANN401 - rich's
        if usage:
            _print(console, f"Usage: {_plain(usage, console)}\n")

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:  # noqa: ANN401
        command = self._of.default_command if self._of is not None else None
        # The docstring: what the command is registered with is its line in the list of commands, and says less.
        text = inspect.getdoc(command) if command is not None else _plain(description, console)
        if text:
            _print(console, f"{filled(text[0].upper() + text[1:])}\n")

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        if panel.entries:
            _print(console, "\n".join(columns((_name(entry), _meaning(entry, console)) for entry in panel.entries)))


def _print(console: Console, text: str) -> None:
    print(text, file=console.file)


def _plain(renderable: Any, console: Console) -> str:  # noqa: ANN401 - whatever rich renders
    return " ".join("".join(segment.text for segment in console.render(renderable)).split())


def _name(entry: HelpEntry) -> str:
    if entry.positional_label:
        return entry.positional_label
    names = ", ".join((*entry.shorts, *entry.names))
    return f"{names} {_VALUES.get(entry.metavar, entry.metavar)}" if entry.metavar else names


_VALUES = {"STR": "TEXT", "INT": "N", "FLOAT": "N"}
"""What people call what cyclopts calls by its type."""


def _meaning(entry: HelpEntry, console: Console) -> str:
    text = _plain(entry.description, console) if entry.description else ""
    default = "required" if entry.required else entry.default
    return text if default in (None, "False") else f"{text} [{default}]"
