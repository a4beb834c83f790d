"""What the method raises on purpose. Each message is for a person: the thing, expected, found, what to do.

ZipstageError
+-- SettingsError     a setting that can't be: unknown name, out of range      exit code 2
+-- PriorError        a prior that isn't there or can't be read                exit code 2
+-- ... the pipeline's own, in `pipeline.errors`
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ZipstageError(Exception):
    """Base of all errors that people are told without a traceback; `exit_code` is the command's."""

    exit_code = 1


class SettingsError(ZipstageError):
    """A setting that can't be."""

    exit_code = 2


class PriorError(ZipstageError):
    """A prior that isn't there, or isn't what its name says."""

    exit_code = 2


def nearest(word: str, known: Iterable[str]) -> str:
    """' Did you mean X?' with the known word that is nearest, or nothing."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {matches[0]!r}?" if matches else ""
