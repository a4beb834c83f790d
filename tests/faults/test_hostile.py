"""Samples that were made to hurt, and purifiers that fail: each costs its own row or part, and says so."""

from __future__ import annotations

import io
import struct
import tarfile
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from inprocess import Inverting, run
from making import encoded, job, picture, samples, write_tar
from PIL import Image

from pipeline import images, ledger
from pipeline.config import JobConfig, LimitsConfig
from pipeline.device_errors import SickDeviceError
from pipeline.inputs import find_shards
from pipeline.ledger import Task
from pipeline.parts import Part
from pipeline.stages import Purify, read_parts
from zipstage.tiles import Tiles, num_cells, pack


def rows(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "out/tables/a.tar.parquet").to_pylist()


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header says so, with hardly a pixel behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


# --- samples ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "data", "label"),
    [
        ("cls", b"99999999999999999999", None),
        ("cls", b"-9223372036854775809", None),
        ("cls", b"9" * 100_000, None),
        ("cls", b"9223372036854775807", 2**63 - 1),
        ("json", b"[" * 200_000, None),
        ("json", b'{"label": ' + b"[" * 200_000, None),
        ("json", b'{"label": 99999999999999999999}', None),
        ("json", b'{"label": true}', None),
        ("json", b'{"label": 7}', 7),
    ],
)
def test_a_label_that_is_no_class_is_no_label_and_costs_nothing_else(
    tmp_path: Path, suffix: str, data: bytes, label: int | None
) -> None:
    write_tar(tmp_path / "in/a.tar", [[("x.png", encoded(picture(1))), (f"x.{suffix}", data)], *samples(2)])
    summary, _ = run(job(tmp_path))
    assert summary.exit_code == 0
    assert [(row["status"], row["label"]) for row in rows(tmp_path)] == [("ok", label), ("ok", 0), ("ok", 1)]
    with tarfile.open(tmp_path / "out/shards/a.tar") as tar:
        assert tar.extractfile(f"x.{suffix}").read() == data


@pytest.mark.parametrize("size", [(1, 50_000_000), (50_000_000, 1), (255, 196_000)])
def test_a_narrow_image_that_would_take_too_many_tiles_is_rejected_by_its_header(size: tuple[int, int]) -> None:
    with pytest.raises(images.RejectedError, match=rf"{size[0]}x{size[1]} px, which travel as .*limits\.max_pixels"):
        images.decode(png_of(*size), LimitsConfig())


@pytest.mark.parametrize("size", [(8000, 6000), (6000, 8000), (195_000, 256), (100_000, 30)])
def test_an_image_within_the_limit_is_not_rejected_for_its_shape(size: tuple[int, int]) -> None:
    with pytest.raises(images.UndecodableError):  # what is behind the header was read
        images.decode(png_of(*size), LimitsConfig())


@pytest.mark.parametrize("limit", [65_536, 1_000_000, 50_000_000])
def test_what_passes_the_limit_takes_at_most_four_times_its_pixels_as_tiles(limit: int) -> None:
    for height in (1, 31, 256, 257, 300, 449, 1000, 7000):
        low, high = 1, limit
        while low < high:  # the widest that passes
            width = (low + high + 1) // 2
            low, high = (width, high) if passes(height, width, limit) else (low, width - 1)
        if passes(height, low, limit):
            assert num_cells(height, low) * 256**2 <= max(4 * limit, 4 * 256**2)


def passes(height: int, width: int, limit: int) -> bool:
    try:
        images.decode(png_of(width, height), LimitsConfig(max_pixels=limit))
    except images.RejectedError:
        return False
    except images.UndecodableError:
        return True
    return True


def test_an_image_that_the_output_format_cant_hold_costs_its_own_row_alone(tmp_path: Path) -> None:
    wide = [("wide.png", encoded(np.zeros((2, 20_000, 3), np.uint8))), ("wide.txt", b"text")]
    write_tar(tmp_path / "in/a.tar", [wide, *samples(2)])
    summary, _ = run(job(tmp_path, encoding__format="webp"))
    assert summary.exit_code == 0
    assert [row["status"] for row in rows(tmp_path)] == ["rejected", "ok", "ok"]
    assert "20000x2 px, and webp holds at most 16383" in rows(tmp_path)[0]["error"]
    with tarfile.open(tmp_path / "out/shards/a.tar") as tar:
        assert {name.partition(".")[0] for name in tar.getnames()} == {"000000", "000001"}


@pytest.mark.parametrize("kind", ["alpha", "exif", "icc"])
def test_alpha_exif_and_profile_count_as_bytes_of_a_part(tmp_path: Path, kind: str) -> None:
    facts: dict[str, Any] = {"exif": {"exif": b"Exif\0\0" + bytes(300_000)}}.get(kind, {})
    if kind == "icc":
        facts = {"icc_profile": bytes(16) + b"RGB " + bytes(300_000)}
    image = Image.new("RGBA" if kind == "alpha" else "RGB", (500, 500))  # 0.72 MiB, and 0.24 of alpha
    file = io.BytesIO()
    image.save(file, "PNG", **facts)
    small = [(f"s{i}.png", encoded(picture(i, 150, 150))) for i in range(2)]  # 0.06 MiB each
    write_tar(tmp_path / "in/a.tar", [[("k.png", file.getvalue())], *([member] for member in small)])
    config = job(tmp_path, part__max_mib=1, limits__max_member_mib=4)
    assert [len(part.samples) for part in parts_of(config)] == [1, 2]


def parts_of(config: JobConfig) -> list[Part]:
    (shard,) = find_shards(config.input)
    return list(read_parts(Task(shard, "0" * 12, frozenset(), replaces=False), config))


def test_samples_without_an_image_fill_parts_as_well(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", [[(f"{i:04d}.txt", b"")] for i in range(3000)])
    parts = parts_of(job(tmp_path, part__max_mib=1))
    assert len(parts) >= 3
    assert sum(len(part.samples) for part in parts) == 3000


def test_what_isnt_purified_leaves_its_members_behind(tmp_path: Path) -> None:
    bulk = ("x.bin", bytes(3 << 20))
    write_tar(tmp_path / "in/a.tar", [[("x.png", b"none"), bulk], [("y.txt", b""), ("y.bin", bulk[1])], *samples(1)])
    (part,) = parts_of(job(tmp_path, part__max_mib=1))
    assert [(sample.status, len(sample.members)) for sample in part.samples] == [
        ("undecodable", 0),
        ("rejected", 0),
        ("ok", 3),
    ]


def test_a_json_of_many_megabytes_isnt_searched_for_a_label(tmp_path: Path) -> None:
    lists = b'{"label": 3, "x": [' + b"[]," * 2_000_000 + b"1]}"
    write_tar(tmp_path / "in/a.tar", [[("x.png", encoded(picture(1))), ("x.json", lists)]])
    tracemalloc.start()
    (part,) = parts_of(job(tmp_path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert part.samples[0].label is None
    assert peak < 10 * len(lists)


def test_a_profile_that_a_png_cant_be_opened_with_again_is_rejected() -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", icc_profile=bytes(16) + b"RGB " + bytes(1 << 20))
    with pytest.raises(images.RejectedError, match="a colour profile of 1048596 bytes"):
        images.decode(file.getvalue(), LimitsConfig())


@pytest.mark.parametrize("error", [ValueError("encoding error 6"), struct.error("ubyte format requires")])
def test_an_image_that_the_encoder_trips_over_costs_its_own_row_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    save = Image.Image.save

    def trip(image: Image.Image, *args: Any, **options: Any) -> None:
        if image.size == (7, 5):
            raise error
        save(image, *args, **options)

    write_tar(tmp_path / "in/a.tar", [[("odd.png", encoded(picture(9, 5, 7)))], *samples(2)])
    monkeypatch.setattr(Image.Image, "save", trip)
    summary, _ = run(job(tmp_path))
    assert summary.exit_code == 0
    assert [row["status"] for row in rows(tmp_path)] == ["rejected", "ok", "ok"]
    assert rows(tmp_path)[0]["error"] == f"it can't be written as png: {error}"


def test_parts_that_another_version_cut_are_not_taken_for_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "in/a.tar", samples(2))
    config = job(tmp_path)
    (shard,) = find_shards(config.input)
    before = ledger.plan_identity(shard, "f", config)
    monkeypatch.setattr(ledger, "PARTS_REVISION", ledger.PARTS_REVISION + 1)
    assert ledger.plan_identity(shard, "f", config) != before


# --- purifiers --------------------------------------------------------------------------------------


class Raising(Inverting):
    """Raises the given errors, one a call, before it begins to work."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self.errors = list(errors)

    def purify(self, tiles: Tiles) -> Tiles:
        if self.errors:
            raise self.errors.pop(0)
        return super().purify(tiles)


def a_part() -> Part:
    return Part("a.tar", "0" * 12, 0, True, (), pack([picture(0)], np.zeros((1, 2), np.uint64)).groups)


def tried(purifier: Raising, max_attempts: int = 3) -> tuple[Part, int]:
    """The part that came out, and how often it was tried."""
    count = [0]

    def attempt(shard: str, part: int) -> int:
        count[0] += 1
        return count[0]

    return Purify(purifier, {}, attempt, max_attempts)(a_part()), count[0]


def test_a_part_that_fails_once_is_purified_at_the_second_try() -> None:
    part, times = tried(Raising(RuntimeError("cuDNN was busy")))
    assert (part.outcome, len(part.purified), times) == (None, 1, 2)


def test_a_part_that_fails_twice_is_given_up_with_the_purifiers_words() -> None:
    part, times = tried(Raising(*[ValueError("a shape is off")] * 9))
    assert (part.outcome, part.error, times) == (
        "failed",
        "shard a.tar, part 0: purifier: ValueError: a shape is off",
        2,
    )


def test_a_part_is_not_tried_more_often_than_set() -> None:
    part, _ = tried(Raising(ValueError("a shape is off")), max_attempts=1)
    assert part.error == "shard a.tar, part 0: purifier: ValueError: a shape is off"


def cpu_allocation_failure() -> Exception:
    try:
        torch.empty(2**60, dtype=torch.uint8)
    except RuntimeError as error:
        return error
    raise AssertionError("there were 2**60 bytes")


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (MemoryError("Unable to allocate 9 GiB"), 1),
        (cpu_allocation_failure(), 1),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), 2),
        (RuntimeError("CUDA error: out of memory"), 2),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), 2),
    ],
)
def test_too_little_memory_names_the_setting_and_main_memory_is_asked_for_once(error: Exception, times: int) -> None:
    part, tries = tried(Raising(*[error] * 9))
    assert part.outcome == "failed"
    assert part.error is not None
    assert part.error.endswith("Set a lower purifier.batch")
    assert tries == times


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: unspecified launch failure"),
    ],
)
def test_a_sick_device_ends_its_process_instead_of_failing_every_further_part(error: Exception) -> None:
    with pytest.raises(SickDeviceError, match=r"shard a\.tar, part 0: .*CUDA error"):
        tried(Raising(error))
