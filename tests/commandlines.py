"""Command lines that people are shown, in help and in documents: what must be true of each, without running it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from jobs.arguments import parse_flags, read_job
from jobs.main import build_app

ROOT = Path(__file__).parents[1]
_OF_SUBMIT = "--address"
_SHELL = re.compile(r"\s(?:[|;<>&]|\d>).*")


def command_lines(text: str) -> Iterator[str]:
    """The lines of a shell that begin with `zipstage`, continuations joined, what follows for the shell left out."""
    for line in text.replace("\\\n", " ").splitlines():
        found = re.match(r"\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(zipstage\s.*)", line)
        if found:
            yield _SHELL.sub("", found[1]).strip()


def check(line: str) -> None:
    """Let the command line be read as `zipstage` reads it, up to where it would begin to work.

    Raises:
        CycloptsError: No such command, or a flag of the command's own that is wrong.
        ConfigError: A field of the job that isn't there or can't be.
    """
    words = shlex.split(line, comments=True)[1:]
    if "--help" in words or "--version" in words:
        words = [word for word in words if not word.startswith("-")]
        app = build_app()
        for word in words:
            app = app[word]
        return
    _, bound, _ = build_app().parse_args(words, exit_on_error=False, print_error=False)
    if "tokens" not in bound.signature.parameters:
        return
    tokens = list(bound.args)
    if words[0] == "submit":
        place = next(i for i, token in enumerate(tokens) if token.split("=")[0] == _OF_SUBMIT)
        del tokens[place : place + (1 if "=" in tokens[place] else 2)]
    path, _ = parse_flags(tokens)
    if path is None:  # then the line says all of the job
        given = {"input": "in", "output": "out"} if words[0] in ("bench", "probe") else {}
        read_job(tokens, {}, defaults=given)
    elif (ROOT / path).is_file():
        read_job([str(ROOT / path) if token == path else token for token in tokens], {"ZIPSTAGE_DATE": "2026-11-20"})
