"""What the other side said, fit for a message: it is not to be trusted, and may hold what was sent in secret."""

from __future__ import annotations

from collections.abc import Iterable

MAX_QUOTED = 240


def quoted(text: str, secrets: Iterable[str] = ()) -> str:
    """One short line of printable characters, without the secrets."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(line) <= MAX_QUOTED:
        return line
    half = MAX_QUOTED // 2 - 3  # the end as well: that is where a traceback says what went wrong
    return f"{line[:half]} ... {line[-half:]}"
