"""What the commands share: the options that all of them have, and how they print.

Loads nothing, since `zipstage --help` reads every command. A command that takes a job gets its
words raw: any field of the job may be among them, and only `jobs.arguments` knows the fields.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Annotated

from cyclopts import App, Parameter

from jobs.native_stderr import kept_back
from jobs.plain_help import PlainHelp

Tokens = Annotated[str, Parameter(show=False, allow_leading_hyphen=True)]
Verbose = Annotated[bool, Parameter(["--verbose", "-v"], negative="", help="tracebacks, and what Ray says")]


def command(name: str, example: str) -> App:
    """A command whose help is made of its function's docstring and parameters, and ends with an example."""
    app = App(name=name, help_format="plaintext", help_epilogue=f"Example:\n{textwrap.indent(example, '  ')}")
    app.help_formatter = PlainHelp(app)
    return app


def job_command(name: str) -> App:
    """A command that takes the words of a job, `--help` among them."""
    return App(name=name, help_flags=[], version_flags=[])


def wants_help(tokens: tuple[str, ...]) -> bool:
    return "--help" in tokens or "-h" in tokens


def show(text: str) -> int:
    """Print what the command is for; 0, for commands that end with it."""
    print(text)  # noqa: T201 - a command's output
    return 0


def note(text: str) -> None:
    """Tell people something that is not the command's output."""
    print(f"zipstage: {text}", file=sys.stderr, flush=True)  # noqa: T201 - for people


@contextmanager
def ray_kept_quiet(verbose: bool) -> Iterator[None]:
    """Keep what Ray says by itself out of what people see: warnings on stdout, and its core's lines on stderr."""
    if verbose:
        with redirect_stdout(sys.stderr):
            yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), kept_back():  # noqa: PTH123 - a device, no file
        yield
