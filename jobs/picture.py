"""Rows of small images side by side, enlarged, with a line above and below each. Arrays in, a PIL image out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ENLARGE = 6
GAP_PX = 14
TEXT_PX = 15
LINE_PX = 20
PAPER, INK, FAINT, ALARM = (255, 255, 255), (24, 24, 24), (110, 110, 110), (190, 20, 30)


@dataclass(frozen=True, slots=True)
class Panel:
    """One image of a row: pixels uint8 [h, w, 3], what it is, and what the classifier says of it."""

    pixels: np.ndarray
    title: str
    caption: str
    is_wrong: bool = False


def side_by_side(rows: Sequence[tuple[str, Sequence[Panel]]], enlarge: int = ENLARGE) -> Image.Image:
    """Rows of panels, each row under its heading, pixels enlarged so that each can be counted.

    Args:
        rows: A heading and its panels; all panels have one size, all rows one length.
        enlarge: Pixels a side of what a pixel becomes.
    """
    height, width = (enlarge * side for side in rows[0][1][0].pixels.shape[:2])
    columns = max(len(panels) for _, panels in rows)
    row_px = 3 * LINE_PX + height + GAP_PX
    sheet = Image.new("RGB", (GAP_PX + columns * (width + GAP_PX), GAP_PX + len(rows) * row_px), PAPER)
    brush, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT_PX)
    for row, (heading, panels) in enumerate(rows):
        top = GAP_PX + row * row_px
        brush.text((GAP_PX, top), heading, INK, font)
        for column, panel in enumerate(panels):
            left = GAP_PX + column * (width + GAP_PX)
            brush.text((left, top + LINE_PX), panel.title, FAINT, font)
            enlarged = Image.fromarray(panel.pixels).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (left, top + 2 * LINE_PX))
            brush.text((left, top + 2 * LINE_PX + height + 2), panel.caption, ALARM if panel.is_wrong else INK, font)
    return sheet
