"""Rows of small images side by side, enlarged, with a line above and below each. Arrays in, a PIL image out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ENLARGE = 6
GAP_PX = 14
TEXT_PX = 15
LINE_PX = 20
PAPER, INK, FAINT, ALARM = (255, 255, 255), (24, 24, 24), (110, 110, 110), (190, 20, 30)
_GRAY = 128


@dataclass(frozen=True, slots=True)
class Panel:
    """One image of a row: pixels uint8 [h, w, 3], what it is, and what the classifier says of it, in lines."""

    pixels: np.ndarray
    title: str
    caption: str
    is_wrong: bool = False


def side_by_side(rows: Sequence[tuple[str, Sequence[Panel]]], enlarge: int = ENLARGE) -> Image.Image:
    """Rows of panels, each row under its heading, pixels enlarged so that each can be counted.

    Args:
        rows: A heading, in lines, and its panels; all panels have one size, all rows one length.
        enlarge: Pixels a side of what a pixel becomes.
    """
    font = ImageFont.load_default(TEXT_PX)
    height, width = (enlarge * side for side in rows[0][1][0].pixels.shape[:2])
    panels = [panel for _, some in rows for panel in some]
    column_px = max(width, _width(font, (text for panel in panels for text in (panel.title, panel.caption))))
    columns = max(len(some) for _, some in rows)
    above = LINE_PX * (1 + max(_lines(heading) for heading, _ in rows))
    row_px = above + height + LINE_PX * max(_lines(panel.caption) for panel in panels) + GAP_PX
    sheet_px = max(columns * (column_px + GAP_PX), _width(font, (heading for heading, _ in rows)) + GAP_PX)
    sheet = Image.new("RGB", (GAP_PX + sheet_px, GAP_PX + len(rows) * row_px), PAPER)
    brush = ImageDraw.Draw(sheet)

    def write(at: tuple[int, int], text: str, ink: tuple[int, int, int]) -> None:
        for number, line in enumerate(text.split("\n")):
            brush.text((at[0], at[1] + number * LINE_PX), line, ink, font)

    for row, (heading, some) in enumerate(rows):
        top = GAP_PX + row * row_px
        write((GAP_PX, top), heading, INK)
        for column, panel in enumerate(some):
            left = GAP_PX + column * (column_px + GAP_PX)
            write((left, top + above - LINE_PX), panel.title, FAINT)
            enlarged = Image.fromarray(panel.pixels).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (left, top + above))
            write((left, top + above + height + 2), panel.caption, ALARM if panel.is_wrong else INK)
    return sheet


def difference(before: np.ndarray, after: np.ndarray, times: int) -> np.ndarray:
    """What changed between two images of one size, so many times as large, around gray; uint8 [h, w, 3]."""
    changed = times * (after.astype(int) - before.astype(int)) + _GRAY
    clipped: np.ndarray = np.clip(changed, 0, 255).astype(np.uint8)
    return clipped


def _lines(text: str) -> int:
    return text.count("\n") + 1


def _width(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, texts: Iterable[str]) -> int:
    """Pixels of the longest line."""
    return max((int(font.getlength(line)) + 1 for text in texts for line in text.split("\n") if line), default=0)
