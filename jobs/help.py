"""The help of commands that take a job: its fields, written from the models, so that none is forgotten.

Plain text in the width of the terminal; the example comes last, where the eye is when it stops
scrolling.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import groupby
from typing import Literal, get_args, get_origin

from jobs.arguments import Flag, flags, model_in
from pipeline.config import JobConfig
from zipstage.purifiers.settings import METHODS

MAX_WIDTH = 110
_COLUMN = 30  # where descriptions begin
USUAL = ("input", "output", "purifier.method", "purifier.preset", "classifier.url", "classifier.model", "limit")


def job_help(usage: str, about: str, options: str, example: str, fields_shown: Sequence[str] | None = None) -> str:
    """What `--help` of such a command prints.

    Args:
        usage: What follows `zipstage`.
        about: A sentence or two.
        options: Flags of the command's own, one a line; may be empty.
        example: Command lines that work, one a line.
        fields_shown: The fields to list, by dotted names; none: all of them.
    """
    width = min(shutil.get_terminal_size().columns, MAX_WIDTH)
    parts = [f"Usage: zipstage {usage}", textwrap.fill(about, width)]
    if fields_shown is None:
        parts += [*_groups(width), _methods(width), textwrap.fill(_ELSEWHERE, width)]
    else:
        few = [line for name in fields_shown for line in _lines(flags()[name], width)]
        parts += [
            "\n".join(few),
            textwrap.fill("Every field of the job is a flag: `zipstage purify --help` lists them.", width),
        ]
    own = [option.split("|") for option in [*options.splitlines(), "-v, --verbose|tracebacks, and what Ray says"]]
    parts.append("\n".join(line for name, about in own for line in _option(name, about, width)))
    parts.append("Example:\n" + textwrap.indent(example, "  "))
    return "\n\n".join(parts)


_ELSEWHERE = (
    "Each field may stand in CONFIG.yaml (`purifier: {preset: fast}`), in the environment "
    "(ZIPSTAGE_PURIFIER__PRESET=fast) and as a flag; a flag wins over the environment, which wins over the file."
)


def _groups(width: int) -> Iterator[str]:
    """The fields, those of the job itself first, then group by group."""
    ordered = sorted(flags().values(), key=lambda flag: _group(flag) != "")
    for group, members in groupby(ordered, key=_group):
        lines = [line for flag in members for line in _lines(flag, width)]
        title = [f"{group}: {_about(group)}"] if group else []
        yield "\n".join(title + lines)


def _group(flag: Flag) -> str:
    return flag.name.partition(".")[0] if "." in flag.name else ""


def _about(group: str) -> str:
    """The first sentence of the model's docstring."""
    model = model_in(JobConfig.model_fields[group].annotation)
    return (getattr(model, "__doc__", None) or group).strip().splitlines()[0].rstrip(".")


def _lines(flag: Flag, width: int) -> Iterator[str]:
    default = f"[{flag.default.strip('[]')}]" if flag.default else "[required]" if flag.field.is_required() else ""
    about = "; ".join(part for part in (_choices(flag), flag.field.description or "") if part)
    return _option(flag.typed, " ".join(part for part in (about, default) if part), width)


def _choices(flag: Flag) -> str:
    annotation = flag.field.annotation
    literal = next((a for a in (annotation, *get_args(annotation)) if get_origin(a) is Literal), None)
    return " | ".join(str(choice) for choice in get_args(literal))


def _option(name: str, about: str, width: int) -> Iterator[str]:
    """A flag and what it does, the latter in a column of its own."""
    first = f"  {name.strip()}".ljust(_COLUMN)
    indent = " " * _COLUMN
    if not about.strip():
        yield first.rstrip()
        return
    wrapped = textwrap.wrap(about.strip(), width, initial_indent=indent, subsequent_indent=indent)
    if len(first) > _COLUMN:
        yield first.rstrip()
    else:
        wrapped[0] = first + wrapped[0].lstrip()
    yield from wrapped


def _methods(width: int) -> str:
    """Presets and settings of each method, as they stand in its default preset."""
    lines = ["purifier's methods, their presets and settings; each setting is a flag (--purifier.sigma-white .2)"]
    for name, method in METHODS.items():
        default = method.presets["default"]
        settings = ", ".join(f"{field.name} {_typed(getattr(default, field.name))}" for field in fields(default))
        text = ", ".join(method.presets) + (f"; {settings}" if settings else "")
        lines += textwrap.wrap(
            f"{name}: {text}", width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
        )
    return "\n".join(lines)


def _typed(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value == ():  # a chain's steps
        return "[{method: ..., SETTING: ...}, ...]"
    return f"{value:g}" if isinstance(value, float) else str(value).replace("(", "[").replace(")", "]")
