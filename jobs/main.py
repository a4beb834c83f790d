"""`zipstage`: the commands, and what people are told when one of them can't.

Commands load when they are called: neither `--help` nor a typing error waits for torch or Ray.
Trap: whatever takes SIGTERM for itself (Ray does, and is kept from it) breaks the promise of 130.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from cyclopts import App, CycloptsError

from jobs.plain_help import PlainHelp
from pipeline.plain import plain
from zipstage import __version__
from zipstage.errors import ZipstageError

BUG, USAGE, INTERRUPTED = 1, 2, 130

_ABOUT = """Purify the images that an untrusted classifier is asked about. Every command says
more with `zipstage COMMAND --help`."""

_COMMANDS = {
    "purify": ("purify", "purify the images of tar shards, and ask a classifier about them"),
    "submit": ("submit", "`purify` on a Ray cluster from outside, with the same exit codes"),
    "query": ("purify", "ask a classifier about shards that are purified already"),
    "plan": ("plan", "what `purify` would do, and about how long it takes; writes nothing"),
    "probe": ("probe", "ask the classifier about three images, and show what it answered"),
    "pack": ("pack", "make shards of a folder of pictures"),
    "show": ("show", "one sample as received and as purified, side by side, with its row"),
    "report": ("report", "the page of a run, made anew: totals, flips, samples in pictures"),
    "verify": ("verify", "prove an output: every record, digest, row and member"),
    "clean": ("clean", "remove what dead runs left; nothing committed"),
    "demo": ("demo", "all of it on this machine, against a backdoored classifier"),
    "evaluate": ("evaluate", "how well the purifiers defend: attacks x data sets x defences"),
    "prior": ("prior", "train a restorer, or import a diffusion prior"),
    "serve": ("serve", "serve a classifier file, ONNX or torch.export, over HTTP"),
    "bench": ("bench", "speed and memory, measured on this machine"),
}
"""Each command: the file of `jobs.commands` that it is in, and what the list of commands says of it."""


def build_app() -> App:
    """The commands; what they need is imported when they are called."""
    app = App(
        name="zipstage",
        help=_ABOUT,
        version=__version__,
        suppress_keyboard_interrupt=False,  # else cyclopts exits by itself, and nobody is told
        help_format="plaintext",
        help_formatter=PlainHelp(),
        help_epilogue="Example:\n  zipstage purify --input in/ --output out/",
    )
    app["--help"].show = app["--version"].show = False  # everybody tries them
    for place, (name, (file, about)) in enumerate(_COMMANDS.items()):
        app.command(f"jobs.commands.{file}:{name}_app", name=name, help=about, sort_key=place)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Command and flags; none: those of the process.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage or config, 75 try again later, 130 interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    is_verbose = "-v" in arguments or "--verbose" in arguments
    try:
        with _sigterm_interrupts():
            code = build_app()(arguments, exit_on_error=False, print_error=False, result_action="return_value")
            sys.stdout.flush()
            return code or 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains on its way out
        return BUG
    except KeyboardInterrupt:
        return _say("interrupted. The same command goes on where it stopped.", INTERRUPTED)
    except CycloptsError as error:
        return _say(_usage(error, arguments[0]), USAGE)
    except ZipstageError as error:
        if is_verbose:
            traceback.print_exc()
        return _say(str(error), error.exit_code)
    except Exception as error:  # noqa: BLE001 - whatever is left is a bug, and people still want one line
        return _say_bug(error, is_verbose)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """SIGTERM does what Ctrl-C does: what is done is kept, and the exit code is 130."""
    raise KeyboardInterrupt


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _usage(error: CycloptsError, command: str) -> str:
    """What is wrong with a command line, with the way to what is right."""
    unused = getattr(error, "unused_tokens", None)
    if not unused:
        return " ".join(str(error).split())
    more = f" and {len(unused) - 1:,} more" if len(unused) > 1 else ""
    hint = f"Quote names with spaces; `zipstage {command} --help` says what it takes."
    return f"{command}: one name too many: {unused[0]!r}{more}. {hint}"


def _say(message: str, code: int) -> int:
    for line in message.split("\n"):
        print(f"zipstage: {plain(line)}", file=sys.stderr)  # noqa: T201 - this is where people are told
    return code


def _say_bug(error: Exception, is_verbose: bool) -> int:
    what = " ".join(traceback.format_exception_only(error)[-1].split())
    if is_verbose:
        traceback.print_exc()
        return _say(f"this is a bug in zipstage: {what}", BUG)
    return _say(f"this is a bug in zipstage: {what}. Run again with -v to see where, and report it.", BUG)
