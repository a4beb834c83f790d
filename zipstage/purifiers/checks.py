"""How a purifier's settings refuse what can't be. Free of torch, as all settings are."""

from __future__ import annotations

from zipstage.errors import SettingsError

SCALES = (1, 2, 4, 8)
"""Edges of a block in pixels: what divides the side of every cell."""


def out_of_range(name: str, expected: str, found: object, hint: str = "") -> SettingsError:
    """The error of a setting that was read but can't be.

    Args:
        name: The setting's, without `purifier.`.
        expected: What it may be.
        found: What it is.
        hint: What may have been meant, such as `nearest` says it.
    """
    return SettingsError(f"purifier.{name}: expected {expected}, found {found!r}.{hint}")


def check_scale(scale: int) -> None:
    """Refuse blocks that don't divide every cell.

    Raises:
        SettingsError: Such a scale.
    """
    if scale not in SCALES:
        raise out_of_range("scale", f"one of {SCALES}, which divide every cell", scale)


def check_between(name: str, low: float, high: float, value: float) -> None:
    """Refuse a number that lies outside of low to high, both included.

    Raises:
        SettingsError: Such a number, or none (nan).
    """
    if not low <= value <= high:
        raise out_of_range(name, f"a number from {low} to {high}", value)
