"""An image as received becomes what the network takes: size, layout, datatype, mean and deviation.

What the config leaves open is taken from the model; where the two differ, it is said before anything
is sent. Resizing is Pillow's, with antialiasing when it shrinks; OpenCV's and torch's plain
bilinear differ from it by some grey levels, so a network sees what it was trained on only if its
own recipe was Pillow's or torchvision's on PIL images.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from pipeline.classifier_config import InputConfig
from pipeline.classifiers.tensors import DTYPES, TensorSpec
from pipeline.errors import ClassifierError

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
    "area": Image.Resampling.BOX,
}
_DATATYPES_BY_DTYPE = {"float32": ("FP32", "FP16", "FP64"), "uint8": ("UINT8",), "bytes": ("BYTES",)}
"""What a dtype of the config may meet on the model's side; numbers are computed in float32, then cast."""


MAX_SIDE_PX = 4096
MAX_BATCH = 2**16
MAX_BATCH_VALUES = 2**28
"""What a model may ask for: it is the other side that says so, and the batch is held in memory as floats."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """From images as received to one batch for the network; made by `resolve`.

    Args:
        size: (height, width) in px, None for as received.
        resize: Pillow's filter.
        crop: Whether the middle is cut instead of the sides squeezed.
        layout: Of tensors of numbers.
        channels: 3, or 1 for the mean of R, G and B.
        datatype: The protocol's name: FP16, FP32, FP64, UINT8 or BYTES (a PNG an image).
        mean: For all channels, or one each, of values in [0, 1].
        std: The same.
        batch: The only number of images that the model takes; None for any.
        rank: Dimensions of the input; BYTES may want [n] or [n, 1].
    """

    size: tuple[int, int] | None
    resize: Literal["bilinear", "bicubic", "nearest", "area"]
    crop: Literal["none", "center"]
    layout: Literal["NCHW", "NHWC"]
    channels: int
    datatype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch: int | None
    rank: int

    @classmethod
    def resolve(cls, config: InputConfig, model: TensorSpec, where: str) -> Preprocess:
        """What to do for this config and this model.

        Args:
            config: `classifier.input`.
            model: Its input, as discovered.
            where: The classifier, for messages.

        Raises:
            ClassifierError: They contradict each other, or the model takes no images.
        """
        said = f"{where}: input {model.name!r} is {model.datatype or 'of unknown type'} {_shown(model.shape)}"
        if config.name not in (None, model.name):
            raise ClassifierError(f"{said}, but input.name is {config.name!r}. Leave it out or correct it.")
        datatype = _datatype(config, model, said)
        if datatype == "BYTES":
            shape, layout, channels, sides = _bytes_shape(model, said), "NCHW", 3, (-1, -1)
        else:
            shape, layout, channels, sides = _image_shape(config, model, said)
        size = _size(config, sides, said)
        _check_extent(shape[0], size, said)
        normalises = tuple(config.mean) != (0.0,) or tuple(config.std) != (1.0,)
        if normalises and not datatype.startswith("FP"):
            raise ClassifierError(f"{said}, but input.mean and input.std need float32. Leave them out.")
        if channels == 1 and max(len(config.mean), len(config.std)) > 1:
            raise ClassifierError(f"{said}, one channel, but input.mean or input.std has three numbers. Give one.")
        if config.crop == "center" and size is None:
            raise ClassifierError(f"{said}, so that input.crop: center needs an input.size.")
        return cls(
            size=size,
            resize=config.resize,
            crop=config.crop,
            layout="NHWC" if layout == "NHWC" else "NCHW",
            channels=channels,
            datatype=datatype,
            mean=tuple(config.mean),
            std=tuple(config.std),
            batch=shape[0] if shape[0] > 0 else None,
            rank=len(shape),
        )

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """One batch for the network.

        Args:
            images: uint8 [n, h, w, 3], RGB.

        Returns:
            [n, c, h, w] or [n, h, w, c] of numbers, or an object array of PNG files.

        Raises:
            ValueError: Other images than that.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(f"expected uint8 [n, h, w, 3], found {images.dtype} {list(images.shape)}")
        if self.size is not None and images.shape[1:3] != self.size:
            images = np.stack([self._resized(image) for image in images])
        if self.datatype == "BYTES":
            return _encoded(images).reshape((-1,) + (1,) * (self.rank - 1))
        batch = self._numbers(images)
        return np.ascontiguousarray(batch.transpose(0, 3, 1, 2) if self.layout == "NCHW" else batch)

    def told(self) -> str:
        """What becomes of an image's pixels, for people."""
        steps = ["as received" if self.size is None else self._told_size()]
        if self.datatype == "BYTES":
            return ", ".join([*steps, "as a PNG file"])
        if self.channels == 1:
            steps.append("gray, the mean of R, G and B")
        if self.datatype == "UINT8":
            return ", ".join([*steps, "0 to 255, not normalised"])
        steps.append("x / 255")
        if not self._is_plain:
            steps.append(f"less mean {_listed(self.mean)}, by std {_listed(self.std)}")
        return ", ".join([*steps, "no mean or std set"] if self._is_plain else steps)

    @property
    def _is_plain(self) -> bool:
        return not any(self.mean) and set(self.std) == {1.0}

    def _told_size(self) -> str:
        height, width = self.size or (0, 0)
        if self.crop == "center":
            return f"shrunk ({self.resize}) and {height}x{width} px cut out of the middle"
        return f"resized to {height}x{width} px ({self.resize})"

    def _numbers(self, images: np.ndarray) -> np.ndarray:
        pixels = images
        if self.channels == 1:
            pixels = images.mean(axis=3, keepdims=True, dtype=np.float32)
        if self.datatype == "UINT8":
            return np.asarray(np.rint(pixels), np.uint8)
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        scaled = (pixels.astype(np.float32) / np.float32(255) - mean) / std
        return np.asarray(scaled, DTYPES[self.datatype])

    def _resized(self, image: np.ndarray) -> np.ndarray:
        height, width = self.size or image.shape[:2]
        picture, filter_ = Image.fromarray(image), _RESAMPLING[self.resize]
        if self.crop == "none":
            return np.asarray(picture.resize((width, height), filter_))
        scale = max(height / picture.height, width / picture.width)
        # whole px of the long side as torchvision's Resize cuts them; never below what is cut out
        larger = max(width, int(picture.width * scale)), max(height, int(picture.height * scale))
        left, top = round((larger[0] - width) / 2), round((larger[1] - height) / 2)
        return np.asarray(picture.resize(larger, filter_).crop((left, top, left + width, top + height)))


def fill_up(batch: np.ndarray, wanted: int | None) -> np.ndarray:
    """The batch with its last row repeated until there are as many as a fixed batch wants."""
    missing = 0 if wanted is None else wanted - len(batch)
    return np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing > 0 else batch


def _datatype(config: InputConfig, model: TensorSpec, said: str) -> str:
    expected = _DATATYPES_BY_DTYPE[config.dtype or "float32"]
    if model.datatype is None:
        return expected[0]
    if config.dtype is not None and model.datatype not in expected:
        raise ClassifierError(f"{said}, but input.dtype is {config.dtype}. Set it to what the model takes.")
    if not any(model.datatype in datatypes for datatypes in _DATATYPES_BY_DTYPE.values()):
        raise ClassifierError(f"{said}: expected FP32, FP16, FP64, UINT8 or BYTES. Another model or export is needed.")
    return model.datatype


def _bytes_shape(model: TensorSpec, said: str) -> tuple[int, ...]:
    shape = model.shape or (-1,)
    if any(side not in (-1, 1) for side in shape[1:]):
        raise ClassifierError(f"{said}: expected [n] or [n, 1] encoded images.")
    return shape


def _image_shape(
    config: InputConfig, model: TensorSpec, said: str
) -> tuple[tuple[int, ...], Literal["NCHW", "NHWC"], int, tuple[int, int]]:
    shape = model.shape or (-1, -1, -1, -1)
    if len(shape) != 4:
        raise ClassifierError(f"{said}: expected 4 dimensions, [n, 3, h, w] or [n, h, w, 3].")
    last_is_channels = shape[3] in (1, 3) and shape[1] not in (1, 3)
    layout = config.layout or ("NHWC" if last_is_channels else "NCHW")
    channels, height, width = shape[1:] if layout == "NCHW" else (shape[3], shape[1], shape[2])
    if channels not in (-1, 1, 3):
        set_by = f"input.layout is {layout}" if config.layout else f"as {layout}"
        raise ClassifierError(f"{said}, but {set_by}, which puts {channels} channels where 3 (RGB) or 1 (gray) belong.")
    return shape, layout, 1 if channels == 1 else 3, (height, width)


def _size(config: InputConfig, sides: tuple[int, int], said: str) -> tuple[int, int] | None:
    wanted = (config.size, config.size) if isinstance(config.size, int) else config.size
    if wanted is None:
        if (sides[0] > 0) != (sides[1] > 0):
            raise ClassifierError(f"{said}, one side open: set input.size to (height, width).")
        return sides if sides[0] > 0 else None
    if any(side > 0 and side != want for side, want in zip(sides, wanted, strict=True)):
        raise ClassifierError(f"{said}, but input.size is {wanted[0]}x{wanted[1]}. Leave it out or correct it.")
    return wanted


def _check_extent(batch: int, size: tuple[int, int] | None, said: str) -> None:
    height, width = size or (1, 1)
    num_values = max(batch, 1) * height * width * 3
    if max(height, width) > MAX_SIDE_PX or batch > MAX_BATCH or num_values > MAX_BATCH_VALUES:
        raise ClassifierError(
            f"{said}: expected images of at most {MAX_SIDE_PX} px a side, and batches of at most {MAX_BATCH:,} images "
            f"and {MAX_BATCH_VALUES:,} numbers, found more. Is it the model's shape?"
        )


def _encoded(images: np.ndarray) -> np.ndarray:
    encoded = np.empty(len(images), dtype=object)
    for index, image in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG", compress_level=1)
        encoded[index] = file.getvalue()
    return encoded


def _listed(values: tuple[float, ...]) -> str:
    shown = ", ".join(f"{value:g}" for value in values)
    return shown if len(values) == 1 else f"[{shown}]"


def _shown(shape: tuple[int, ...] | None) -> str:
    return "of unknown shape" if shape is None else str(list(shape))
