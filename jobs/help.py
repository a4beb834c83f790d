"""The help of commands that take a job: a screen of what is usual, and with `-v` all fields, none forgotten.

Fields, methods and settings are written from the models; the example comes last, where the eye is when
it stops scrolling.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import groupby
from typing import Literal, get_args, get_origin

from jobs.arguments import Flag, flags, model_in
from jobs.plain_help import columns, filled, width
from pipeline.config import JobConfig
from zipstage.purifiers.settings import METHODS

USUAL = ("input", "output", "purifier.method", "purifier.preset", "classifier.url", "classifier.model", "limit")


def job_help(
    usage: str, about: str, options: str, example: str, shown: Sequence[str] = USUAL, *, everything: bool = False
) -> str:
    """What `--help` of such a command prints.

    Args:
        usage: What follows `zipstage`.
        about: A sentence or two.
        options: Flags of the command's own, one a line, `--name VALUE|what it does`; may be empty.
            Those below an empty line are rare, and shown with everything.
        example: Command lines that work, one a line.
        shown: The fields of the job that are shown, by dotted names.
        everything: Whether all fields are shown, each in full.
    """
    usual, _, rare = options.partition("\n\n")
    own = f"{usual}\n{rare}" if everything else usual
    rows = [(name, about) for name, _, about in (line.partition("|") for line in own.splitlines() if line)]
    rows.append(("-v, --verbose", "with --help: all flags, each in full; else tracebacks, and what Ray says"))
    parts = [f"Usage: zipstage {usage}", filled(about)]
    if everything:
        parts += [*_groups(), _methods(), filled(_ELSEWHERE), "\n".join(columns(rows))]
    else:
        parts.append("\n".join(columns([*(_row(flags()[name]) for name in shown), *rows], shortened=True)))
    parts.append("Example:\n" + textwrap.indent(example, "  "))
    return "\n\n".join(parts)


_ELSEWHERE = (
    "Each field may stand in CONFIG.yaml (`purifier: {preset: fast}`), in the environment "
    "(ZIPSTAGE_PURIFIER__PRESET=fast) and as a flag; a flag wins over the environment, which wins over the file."
)


def _groups() -> Iterator[str]:
    """The fields, those of the job itself first, then group by group."""
    ordered = sorted(flags().values(), key=lambda flag: _group(flag) != "")
    for group, members in groupby(ordered, key=_group):
        title = [filled(f"{group}: {_about(group)}")] if group else []
        yield "\n".join([*title, *columns(_row(flag) for flag in members)])


def _group(flag: Flag) -> str:
    return flag.name.partition(".")[0] if "." in flag.name else ""


def _about(group: str) -> str:
    """The first sentence of the model's docstring."""
    model = model_in(JobConfig.model_fields[group].annotation)
    return (getattr(model, "__doc__", None) or group).strip().splitlines()[0].rstrip(".")


def _row(flag: Flag) -> tuple[str, str]:
    is_required = flag.field.is_required() and "." not in flag.name  # a classifier as a whole may be left out
    default = f"[{flag.default.strip('[]')}]" if flag.default else "[required]" if is_required else ""
    about = "; ".join(part for part in (_choices(flag), flag.field.description or "") if part)
    return flag.typed, " ".join(part for part in (about, default) if part)


def _choices(flag: Flag) -> str:
    annotation = flag.field.annotation
    literal = next((a for a in (annotation, *get_args(annotation)) if get_origin(a) is Literal), None)
    return " | ".join(str(choice) for choice in get_args(literal))


def _methods() -> str:
    """Presets and settings of each method, as they stand in its default preset."""
    about = "methods: their presets; their settings, each of which is a flag (--purifier.draws 4)"
    lines = [filled(about)]
    for name, method in METHODS.items():
        default = method.presets["default"]
        settings = ", ".join(f"{field.name} {_typed(getattr(default, field.name))}" for field in fields(default))
        text = ", ".join(method.presets) + (f"; {settings}" if settings else "")
        lines += textwrap.wrap(
            f"{name}: {text}", width(), initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
        )
    return "\n".join(lines)


def _typed(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value == ():  # a chain's steps
        return "[{method: ..., SETTING: ...}, ...]"
    return f"{value:g}" if isinstance(value, float) else str(value).replace("(", "[").replace(")", "]")
