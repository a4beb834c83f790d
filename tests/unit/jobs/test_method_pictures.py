"""The pictures of the page on methods: drawn by a command, named on the page, small."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs import method_pictures
from jobs.method_pictures import CONTROLS, FOLDER, STEPWISE, draw_all, received, stages
from zipstage.purifiers import build
from zipstage.purifiers.settings import METHODS

PAGE = FOLDER.parent / "purifiers.md"
MAX_BYTES = 300_000


def test_all_methods_are_drawn_and_shown_on_the_page_with_the_command() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert {*STEPWISE, *CONTROLS, "none"} == set(METHODS)
    assert set(re.findall(r"\]\(pictures/([^)]*)\)", text)) == {path.name for path in FOLDER.iterdir()}
    assert "python -m jobs.method_pictures" in text
    assert [name for name in METHODS if f"`{name}`" not in text] == []


def test_the_pictures_are_small_together() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MAX_BYTES


def test_a_sheet_is_drawn_of_the_received_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(method_pictures.STEPWISE, "restore", method_pictures.STEPWISE["chain"].steps[0])  # no network
    (path,) = draw_all(tmp_path, ["restore"])
    sheet = np.asarray(Image.open(path).convert("RGB"))
    for image in received().tiles.cells():
        row, column = _found(sheet, image.repeat(3, 0).repeat(3, 1))
        assert (row, column) != (-1, -1)


def test_the_rows_are_a_clean_image_and_one_with_each_trigger() -> None:
    of = received()
    assert [heading.partition(":")[0] for heading in of.headings] == ["clean", "patch", "blend"]
    assert of.tiles.count == 3


@pytest.mark.parametrize(
    ("method", "titles"),
    [
        ("restore", ["hidden", "damaged"]),
        ("zip", ["range part", "x_t, t = 350", "x0|t"]),
        ("sampdetox", ["x_bar", "1 - SSIM", "noised to"]),
        ("chain", ["first step"]),
    ],
)
def test_each_stage_is_a_picture_of_its_own(method: str, titles: list[str]) -> None:
    tiles = received().tiles
    shown = [*stages(build(STEPWISE[method], batch=3), tiles), ("received", tiles.cells())]
    assert [title for title, _ in shown[:-1]] == titles
    assert {images.shape for _, images in shown} == {(3, 32, 32, 3)}
    assert len({images.tobytes() for _, images in shown}) == len(shown)


def _found(sheet: np.ndarray, image: np.ndarray) -> tuple[int, int]:
    """Where an image stands on a sheet; (-1, -1) where it doesn't."""
    height, width = image.shape[:2]
    for row, column in np.argwhere((sheet == image[0, 0]).all(-1)):
        if np.array_equal(sheet[row : row + height, column : column + width], image):
            return int(row), int(column)
    return -1, -1
