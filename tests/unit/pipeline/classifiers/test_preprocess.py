from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.classifier_config import InputConfig
from pipeline.classifiers.preprocess import Preprocess, fill_up
from pipeline.classifiers.tensors import TensorSpec
from pipeline.errors import ClassifierError

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 12, 20, 3), dtype=np.uint8)


def spec(datatype="FP32", shape=(-1, 3, -1, -1)):
    return TensorSpec("image", datatype, shape)


def resolve(model=None, **config):
    return Preprocess.resolve(InputConfig(**config), model or spec(), "classifier x")


def test_floats_are_x_over_255_less_mean_by_std_for_each_channel():
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)
    batch = resolve(mean=mean, std=std)(IMAGES)
    expected = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).double() / 255
    expected = (expected - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    np.testing.assert_allclose(batch, expected.numpy(), atol=1e-6)


def test_uint8_goes_raw_in_the_models_own_layout():
    batch = resolve(spec("UINT8", (-1, 12, 20, 3)))(IMAGES)
    assert batch.dtype == np.uint8
    np.testing.assert_array_equal(batch, IMAGES)


def test_half_precision_is_rounded_from_float32():
    batch = resolve(spec("FP16"))(IMAGES)
    np.testing.assert_array_equal(batch, resolve()(IMAGES).astype(np.float16))


def test_bytes_are_png_files_of_the_pixels():
    batch = resolve(spec("BYTES", (-1, 1)))(IMAGES)
    assert batch.shape == (3, 1)
    for encoded, image in zip(batch[:, 0], IMAGES, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded))), image)


def test_the_models_fixed_sides_decide_where_the_config_says_none():
    assert resolve(spec(shape=(-1, 3, 6, 10)))(IMAGES).shape == (3, 3, 6, 10)


def test_open_sides_keep_the_received_size():
    assert resolve()(IMAGES).shape == (3, 3, 12, 20)


def test_area_is_the_mean_of_blocks():
    batch = resolve(spec("UINT8", (-1, -1, -1, 3)), size=(6, 10), resize="area")(IMAGES)
    blocks = IMAGES.reshape(3, 6, 2, 10, 2, 3).astype(float).mean((2, 4))
    assert np.abs(batch - blocks).max() <= 1


@pytest.mark.parametrize("resize", ["bilinear", "bicubic"])
def test_shrinking_is_antialiased_as_torchs_is(resize):
    # low contrast: Pillow cuts bicubic's overshoot off between its two passes, torch at the end
    large = np.kron(IMAGES // 4 + 96, np.ones((1, 4, 4, 1), np.uint8))
    batch = resolve(size=(15, 24), resize=resize)(large)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(large).permute(0, 3, 1, 2).float(), (15, 24), mode=resize, antialias=True, align_corners=False
    )
    assert np.abs(batch * 255 - expected.numpy()).max() <= 1.5


def test_a_centre_crop_cuts_the_middle_of_the_long_side():
    images = np.zeros((1, 4, 10, 3), np.uint8)
    images[:, :, 3:7] = 255
    batch = resolve(spec("UINT8", (-1, -1, -1, 3)), size=4, crop="center", resize="nearest")(images)
    assert batch.shape == (1, 4, 4, 3)
    assert batch.min() == 255


def test_one_channel_is_the_mean_of_three():
    batch = resolve(spec("UINT8", (-1, 1, 12, 20)))(IMAGES)
    assert batch.shape == (3, 1, 12, 20)
    np.testing.assert_array_equal(batch[:, 0], np.rint(IMAGES.astype(float).mean(3)))


def test_a_fixed_batch_is_filled_with_its_last_row():
    batch = np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(fill_up(batch, 5), [[0, 1], [2, 3], [4, 5], [4, 5], [4, 5]])
    assert fill_up(batch, None) is batch


@pytest.mark.parametrize(
    ("model", "config", "said"),
    [
        (spec(shape=(-1, 3, 32, 32)), {"size": 64}, r"\[-1, 3, 32, 32\], but input.size is 64x64"),
        (spec(), {"dtype": "uint8"}, "is FP32 .* but input.dtype is uint8"),
        (spec("INT64"), {}, "is INT64 .*expected FP32, FP16, FP64, UINT8 or BYTES"),
        (spec(shape=(-1, 3, 32, 32)), {"layout": "NHWC"}, "but input.layout is NHWC, which puts 32 channels"),
        (spec(shape=(-1, 784)), {}, "expected 4 dimensions"),
        (spec("UINT8"), {"mean": (0.5,)}, "input.mean and input.std need float32"),
        (spec(shape=(-1, 1, 28, 28)), {"mean": (0.1, 0.2, 0.3)}, "one channel, but input.mean"),
        (spec(shape=(-1, 3, 32, -1)), {}, "one side open"),
        (spec(), {"crop": "center"}, "needs an input.size"),
        (spec(), {"name": "picture"}, "but input.name is 'picture'"),
        (spec("BYTES", (-1, 3, 32, 32)), {}, r"expected \[n\] or \[n, 1\] encoded images"),
    ],
)
def test_a_config_that_contradicts_the_model_is_refused_with_both_named(model, config, said):
    with pytest.raises(ClassifierError, match=said) as caught:
        resolve(model, **config)
    assert "classifier x" in str(caught.value)
    assert "'image'" in str(caught.value)


@pytest.mark.parametrize(
    ("model", "config", "said"),
    [
        (spec(), {}, "as received, x / 255, no mean or std set"),
        (
            spec(shape=(-1, 3, 6, 10)),
            {"mean": (0.5,)},
            "resized to 6x10 px (bilinear), x / 255, less mean 0.5, by std 1",
        ),
        (
            spec(),
            {"size": 4, "crop": "center", "resize": "area", "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.5, 1)},
            "shrunk (area) and 4x4 px cut out of the middle, x / 255, less mean [0.4, 0.5, 0.6], by std [0.2, 0.5, 1]",
        ),
        (spec("UINT8", (-1, 1, -1, -1)), {}, "as received, gray, the mean of R, G and B, 0 to 255, not normalised"),
        (spec("BYTES", (-1,)), {}, "as received, as a PNG file"),
    ],
)
def test_what_becomes_of_an_image_is_told(model, config, said):
    assert resolve(model, **config).told() == said


def test_images_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="expected uint8"):
        resolve()(IMAGES.astype(np.float32))
