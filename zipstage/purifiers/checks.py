"""What a purifier's settings may be: said beside each field, refused by `check`. Free of torch, as all settings are."""

from __future__ import annotations

import math
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from zipstage.errors import SettingsError, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
N = TypeVar("N", int, float)

SCALES = (1, 2, 4, 8)
"""Edges of a block in pixels: what divides the side of every cell."""

_ALLOWED = "allowed"


class Allowed(Protocol):
    """What a field may hold."""

    @property
    def words(self) -> str:
        """As people read it: `0 to 1`."""
        ...

    def refuse(self, name: str, value: Any) -> None:  # noqa: ANN401 - what a YAML file holds
        """Raise a `SettingsError` for what can't be."""
        ...


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from low to high; nan is none of them.

    Args:
        low, high: Both included.
        is_above: Whether `low` itself is left out.
    """

    low: float
    high: float = math.inf
    is_above: bool = False

    @property
    def words(self) -> str:
        if math.isinf(self.high):
            return f"above {self.low:g}" if self.is_above else f"{self.low:g} upwards"
        return f"above {self.low:g}, up to {self.high:g}" if self.is_above else f"{self.low:g} to {self.high:g}"

    def refuse(self, name: str, value: Any) -> None:  # noqa: ANN401
        is_in = self.low < value <= self.high if self.is_above else self.low <= value <= self.high
        if not is_in:
            raise out_of_range(name, f"a number {'' if self.is_above else 'from '}{self.words}", value)


@dataclass(frozen=True, slots=True)
class Choices:
    """One of a few values.

    Args:
        values: These.
        why: Why no others, such as `which divide every cell`.
    """

    values: tuple[Any, ...]
    why: str = ""

    @property
    def words(self) -> str:
        return ", ".join(map(str, self.values))

    def refuse(self, name: str, value: Any) -> None:  # noqa: ANN401
        if value not in self.values:
            hint = nearest(value, self.values) if isinstance(value, str) else ""
            raise out_of_range(name, f"one of {self.words}{self.why and ', '}{self.why}", value, hint)


def number(default: N, low: float, high: float = math.inf, *, above: bool = False) -> N:
    """A field that holds a number from low to high, or above low; for the type checker it is its default."""
    return field(default=default, metadata={_ALLOWED: Range(low, high, above)})


def choice(default: T, *values: T, why: str = "") -> T:
    """A field that holds one of a few values."""
    return field(default=default, metadata={_ALLOWED: Choices(values, why)})


def scale(default: int = 2) -> int:
    """A field that holds the edge of a block."""
    return choice(default, *SCALES, why="which divide every cell")


def allowed(of: Field[Any]) -> Allowed | None:
    """What a field may hold; none: whatever has its type."""
    found: Allowed | None = of.metadata.get(_ALLOWED)
    return found


def check(settings: DataclassInstance) -> None:
    """Refuse what a field may not hold.

    Raises:
        SettingsError: Such a value.
    """
    for each in fields(settings):
        if (may_be := allowed(each)) is not None:
            may_be.refuse(each.name, getattr(settings, each.name))


def out_of_range(name: str, expected: str, found: object, hint: str = "") -> SettingsError:
    """The error of a setting that was read but can't be.

    Args:
        name: The setting's, without `purifier.`.
        expected: What it may be.
        found: What it is.
        hint: What may have been meant, such as `nearest` says it.
    """
    return SettingsError(f"purifier.{name}: expected {expected}, found {found!r}.{hint}")


def check_between(name: str, low: float, high: float, value: float) -> None:
    """Refuse a number that lies outside of low to high, both included.

    Raises:
        SettingsError: Such a number, or none (nan).
    """
    if not low <= value <= high:
        raise out_of_range(name, f"a number from {low:g} to {high:g}", value)
