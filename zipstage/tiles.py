"""Tiles: how pixels travel. 256x256 canvases cut into a regular grid of equal square cells.

Cells come in few sizes, so that a network can be compiled once for each. An image lies in the
smallest cell that holds it, padded by reflection, and is cut out again at the end; above 256 px
it travels as overlapping windows that are blended. What packing wastes: a 32x32 image nothing,
a 33x33 one a third of its cell (40x40), and the last tile of a group whatever stays empty; empty
cells are never computed by a purifier that works on `cells()`.

Axes: t tiles, n cells in use, c pixels a side of a cell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from zipstage.keys import image_key

TILE_PX = 256
MIN_OVERLAP = 64
CELL_SIZES = (32, 40, 48, 64, 80, 96, 128, 160, 192, 224, 256)


@dataclass(frozen=True, slots=True)
class Tiles:
    """Tiles of one cell size: the only argument and the only result of a purifier.

    Args:
        pixels: uint8 [t, 256, 256, 3], RGB; what no used cell covers is 0.
        cell_px: Pixels a side of a cell, one of `CELL_SIZES`.
        count: Cells in use, filled row by row, tile after tile.
        keys: uint64 [count, 2], the key of each used cell's noise.
        residual: float32 [count], coming out of a purifier that has such a thing: how far the
            residual box stands out (1 is the image's mean); else None.
    """

    pixels: np.ndarray
    cell_px: int
    count: int
    keys: np.ndarray
    residual: np.ndarray | None = None

    @property
    def per_side(self) -> int:
        return TILE_PX // self.cell_px

    def cells(self) -> np.ndarray:
        """The used cells, uint8 [count, c, c, 3]."""
        grid = self._grid(self.pixels)
        return np.ascontiguousarray(grid.reshape(-1, self.cell_px, self.cell_px, 3)[: self.count])

    def with_cells(self, cells: np.ndarray | Sequence[np.ndarray], residual: np.ndarray | None = None) -> Tiles:
        """The same tiles with other cells, uint8 [count, c, c, 3]; unused ones stay as they are."""
        pixels = self.pixels.copy()
        side, c = self.per_side, self.cell_px
        for i, cell in enumerate(cells):
            tile, place = divmod(i, side * side)
            row, column = divmod(place, side)
            pixels[tile, row * c : (row + 1) * c, column * c : (column + 1) * c] = cell
        return replace(self, pixels=pixels, residual=residual)

    def _grid(self, pixels: np.ndarray) -> np.ndarray:
        side, c = self.per_side, self.cell_px
        used = pixels[:, : side * c, : side * c].reshape(len(pixels), side, c, side, c, 3)
        return used.transpose(0, 1, 3, 2, 4, 5)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an image lies: plain integers, so that it can be written down beside the tiles.

    Args:
        height: Rows of the image.
        width: Columns of the image.
        group: Which of the groups it is in.
        first: Its first cell there; an image above 256 px has one for each of its `windows_of`.
    """

    height: int
    width: int
    group: int
    first: int


@dataclass(frozen=True, slots=True)
class Packed:
    """Images as tiles: one group for each cell size, and a placement for each image in its order."""

    groups: tuple[Tiles, ...]
    placements: tuple[Placement, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """A part of an image, at most 256 px a side."""

    top: int
    left: int
    height: int
    width: int


def cell_for(height: int, width: int) -> int:
    """Pixels a side of the cell that an image of this size lies in: the smallest that holds it, or 256."""
    longest = max(height, width)
    return next((cell for cell in CELL_SIZES if cell >= longest), TILE_PX)


def cells_per_tile(cell_px: int) -> int:
    """How many cells of this size a tile has: 64 of 32 px, 1 of 160 px and more."""
    return (TILE_PX // cell_px) ** 2


def num_cells(height: int, width: int) -> int:
    """How many cells an image of this size takes, without packing it: 1, or one a window above 256 px."""
    return len(_starts(height)) * len(_starts(width))


def num_tiles(sizes: Iterable[tuple[int, int]]) -> int:
    """How many tiles images of these (height, width) take together, without packing them."""
    cells: Counter[int] = Counter()
    for height, width in sizes:
        cells[cell_for(height, width)] += num_cells(height, width)
    return sum(-(-count // cells_per_tile(cell_px)) for cell_px, count in cells.items())


def windows_of(height: int, width: int) -> tuple[Window, ...]:
    """The windows of an image, row by row: itself up to 256 px, else overlapping by 64 px or more."""
    rows, columns = min(height, TILE_PX), min(width, TILE_PX)
    return tuple(Window(top, left, rows, columns) for top in _starts(height) for left in _starts(width))


def pack(images: Sequence[np.ndarray], keys: Sequence[np.ndarray] | np.ndarray) -> Packed:
    """Lay images into tiles: groups by cell size, in order of first appearance.

    Args:
        images: uint8 [h, w, 3] each, of any sizes.
        keys: The key of each image's noise, uint64 [n, 2]. An image's further windows get keys
            derived from it.

    Raises:
        ValueError: An image that isn't uint8 [h, w, 3], or as many keys as images are not there.
    """
    if len(images) != len(keys):
        raise ValueError(f"pack: expected a key for each of {len(images)} images, found {len(keys)}.")
    cells: dict[int, list[np.ndarray]] = {}
    cell_keys: dict[int, list[np.ndarray]] = {}
    placements = []
    for number, (image, key) in enumerate(zip(images, keys, strict=True)):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"image {number}: expected uint8 [h, w, 3], found {image.dtype} {list(image.shape)}.")
        height, width, _ = image.shape
        cell_px = cell_for(height, width)
        group = cells.setdefault(cell_px, [])
        group_keys = cell_keys.setdefault(cell_px, [])
        placements.append(Placement(height, width, list(cells).index(cell_px), len(group)))
        for index, window in enumerate(windows_of(height, width)):
            group.append(_cut(image, window))
            group_keys.append(_window_key(key, index))
    groups = tuple(_tile(cell_px, group, np.stack(cell_keys[cell_px])) for cell_px, group in cells.items())
    return Packed(groups, tuple(placements))


def unpack(groups: Sequence[Tiles], placements: Sequence[Placement]) -> tuple[list[np.ndarray], list[float | None]]:
    """Cut the images out again, in their order.

    Returns:
        Images, uint8 [h, w, 3], and the residual of each: that of its cell, the largest of its
        windows, or None where the purifier has no such thing. With unchanged cells the images
        are the ones that were packed, bit by bit.
    """
    cells = [tiles.cells() for tiles in groups]
    images: list[np.ndarray] = []
    residuals: list[float | None] = []
    for place in placements:
        windows = windows_of(place.height, place.width)
        mine = slice(place.first, place.first + len(windows))
        images.append(_blend(cells[place.group][mine], place.height, place.width))
        residual = groups[place.group].residual
        residuals.append(None if residual is None else float(residual[mine].max()))
    return images, residuals


def _cut(image: np.ndarray, window: Window) -> np.ndarray:
    return image[window.top : window.top + window.height, window.left : window.left + window.width]


def _window_key(key: np.ndarray, index: int) -> np.ndarray:
    """The image's own key for its first window, so that most images need no second hash."""
    own = np.asarray(key, dtype=np.uint64)
    return own if index == 0 else image_key(own.astype("<u8").tobytes(), index.to_bytes(8, "little"))


def _tile(cell_px: int, pieces: list[np.ndarray], keys: np.ndarray) -> Tiles:
    num = -(-len(pieces) // cells_per_tile(cell_px))
    empty = Tiles(np.zeros((num, TILE_PX, TILE_PX, 3), np.uint8), cell_px, len(pieces), keys)
    return empty.with_cells([_pad(piece, cell_px) for piece in pieces])


def _pad(piece: np.ndarray, cell_px: int) -> np.ndarray:
    """Reflected below and to the right, as often as it takes; a side of 1 px is repeated."""
    height, width, _ = piece.shape
    if height == width == cell_px:
        return piece
    return np.pad(piece, ((0, cell_px - height), (0, cell_px - width), (0, 0)), mode="reflect")


@lru_cache(maxsize=1024)
def _starts(length: int) -> tuple[int, ...]:
    """Where the windows along a side begin: evenly, at most 192 px apart."""
    rest = length - TILE_PX
    if rest <= 0:
        return (0,)
    steps = -(-rest // (TILE_PX - MIN_OVERLAP))
    return tuple(i * rest // steps for i in range(steps + 1))


@lru_cache(maxsize=8)
def _weights(length: int) -> np.ndarray:
    """The windows' weights along a side, float32 [windows, 256]: a Hann bell each, 1 in sum at each pixel."""
    starts, size = _starts(length), min(length, TILE_PX)
    bell = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
    total = np.zeros(length)
    for start in starts:
        total[start : start + size] += bell
    weights: np.ndarray = np.stack([bell / total[start : start + size] for start in starts]).astype(np.float32)
    return weights


def _blend(cells: np.ndarray, height: int, width: int) -> np.ndarray:
    """One image from its windows; a band of window height at a time, so that floats of all of it never exist."""
    rows, columns = min(height, TILE_PX), min(width, TILE_PX)
    if len(cells) == 1:
        return cells[0, :rows, :columns].copy()
    tops, lefts = _starts(height), _starts(width)
    down, across = _weights(height), _weights(width)[:, None, :, None]
    image = np.empty((height, width, 3), np.uint8)
    band = np.zeros((rows, width, 3), np.float32)
    windows = cells[:, :rows, :columns].reshape(len(tops), len(lefts), rows, columns, 3)
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            weight = down[row][:, None, None] * across[column]
            band[:, left : left + columns] += weight * windows[row, column]
        done = (tops[row + 1] if row + 1 < len(tops) else height) - top
        image[top : top + done] = band[:done].round()
        band = np.concatenate([band[done:], np.zeros((done, width, 3), np.float32)])
    return image
