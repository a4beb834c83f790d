"""The faces of the demo's signs: layers of paint, each a polygon, in a unit circle with y down."""

from __future__ import annotations

import math

Outline = tuple[tuple[float, float], ...]
Layer = tuple[str, Outline]


def _ngon(corners: int, radius: float, start: float = -90.0) -> Outline:
    """A regular polygon; `start` is the angle of its first corner in degrees, -90 is the top."""
    angles = [math.radians(start + 360 * i / corners) for i in range(corners)]
    return tuple((radius * math.cos(a), radius * math.sin(a)) for a in angles)


def _disc(radius: float) -> Outline:
    return _ngon(48, radius)


def _box(left: float, top: float, right: float, bottom: float) -> Outline:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def _bar(length: float, width: float, degrees: float) -> Outline:
    """A bar through the middle, turned by `degrees`."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = _box(-length, -width, length, width)
    return tuple((x * cos - y * sin, x * sin + y * cos) for x, y in corners)


def _moved(outline: Outline, down: float) -> Outline:
    return tuple((x, y + down) for x, y in outline)


UP: Outline = ((0, -0.68), (0.5, -0.12), (0.2, -0.12), (0.2, 0.62), (-0.2, 0.62), (-0.2, -0.12), (-0.5, -0.12))
RIGHT: Outline = tuple((-y, x) for x, y in UP)

TRIANGLE: tuple[Layer, ...] = (
    ("red", _moved(_ngon(3, 1.25), 0.22)),
    ("white", _moved(_ngon(3, 0.84), 0.22)),
)
BLUE_DISC: tuple[Layer, ...] = (("white", _disc(1.0)), ("blue", _disc(0.9)))

FACES: dict[str, tuple[Layer, ...]] = {
    "no entry": (("white", _disc(1.0)), ("red", _disc(0.92)), ("white", _box(-0.66, -0.22, 0.66, 0.22))),
    "ahead": (*BLUE_DISC, ("white", UP)),
    "right": (*BLUE_DISC, ("white", RIGHT)),
    "danger": (*TRIANGLE, ("black", _box(-0.13, -0.3, 0.13, 0.5))),
    "crossing": (
        *TRIANGLE,
        ("black", _moved(_bar(0.42, 0.12, 45), 0.24)),
        ("black", _moved(_bar(0.42, 0.12, -45), 0.24)),
    ),
    "priority": (("white", _ngon(4, 1.1)), ("yellow", _ngon(4, 0.8))),
    "stop": (
        ("white", _ngon(8, 1.05, 22.5)),
        ("red", _ngon(8, 0.95, 22.5)),
        ("white", _box(-0.46, -0.52, -0.12, 0.52)),
        ("white", _box(0.12, -0.52, 0.46, 0.52)),
    ),
    "no stopping": (
        ("red", _disc(1.0)),
        ("blue", _disc(0.76)),
        ("red", _bar(0.85, 0.15, 45)),
        ("red", _bar(0.85, 0.15, -45)),
    ),
    "parking": (
        ("white", _box(-0.88, -0.88, 0.88, 0.88)),
        ("blue", _box(-0.78, -0.78, 0.78, 0.78)),
        ("white", _box(-0.42, -0.6, 0.46, 0.2)),
        ("white", _box(-0.42, -0.6, -0.12, 0.62)),
        ("blue", _box(-0.12, -0.32, 0.16, -0.08)),
    ),
    "give way": (("red", _moved(_ngon(3, 1.2, 90), -0.22)), ("white", _moved(_ngon(3, 0.66, 90), -0.22))),
}
