"""Text from outside, made fit for a line: a name may hold anything, and so may an error that quotes it.

In a log it would begin a line that nobody wrote, on a terminal it would be an order.
"""

from __future__ import annotations

MAX_TEXT = 4_000
"""Characters of one text: nobody reads more of an error, and what collects logs cuts or drops longer lines."""


def plain(text: str) -> str:
    r"""One line that moves no cursor: control characters and halves of others as `\n`, `\x1b`, `\ud800`."""
    shown = "".join(c if c.isprintable() else _escaped(c) for c in text[: MAX_TEXT + 1])
    return shown if len(shown) <= MAX_TEXT else f"{shown[: MAX_TEXT - 4]} ..."


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
