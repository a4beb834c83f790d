from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from zipstage.errors import SettingsError
from zipstage.keys import image_key
from zipstage.purifiers import build, describe
from zipstage.purifiers.chain import ChainPurifier, step_keys
from zipstage.purifiers.settings import settings_for
from zipstage.tiles import pack

KEYS = np.arange(1, 11, dtype=np.uint64).reshape(5, 2)


class Recording:
    """A purifier that keeps what it got, adds one to each pixel, and gives a residual or none."""

    number_type = "float32"

    def __init__(self, residual=None, *, isolates=True, calls=0, digest=""):
        self.residual, self.isolates, self.calls, self.digest, self.got = residual, isolates, calls, digest, None

    def purify(self, tiles):
        self.got = tiles
        residual = None if self.residual is None else np.full(tiles.count, self.residual, np.float32)
        return tiles.with_cells(tiles.cells() + 1, residual)


def chain(*steps):
    return settings_for("chain", "default", {"steps": list(steps)})


@pytest.fixture
def tiles():
    rng = np.random.default_rng(0)
    return pack([rng.integers(0, 200, (40, 40, 3), dtype=np.uint8) for _ in range(5)], KEYS).groups[0]


def test_each_step_gets_what_the_one_before_made(tiles):
    steps = [Recording(), Recording(), Recording()]
    purified = ChainPurifier(steps).purify(tiles)
    for number, step in enumerate(steps):
        assert np.array_equal(step.got.cells(), tiles.cells() + number)
    assert np.array_equal(purified.cells(), tiles.cells() + 3)
    assert np.array_equal(purified.keys, tiles.keys)


def test_a_chain_of_one_is_that_method_alone(tiles):
    alone = build(settings_for("shrinkpad")).purify(tiles)
    assert np.array_equal(build(chain({"method": "shrinkpad"})).purify(tiles).pixels, alone.pixels)


def test_no_step_meets_the_noise_of_another_one_or_of_a_window(tiles):
    steps = [Recording(), Recording(), Recording()]
    ChainPurifier(steps).purify(tiles)
    keys = [tuple(key) for step in steps for key in step.got.keys]
    windows = [tuple(image_key(key.tobytes(), index.to_bytes(8, "little"))) for key in KEYS for index in range(1, 4)]
    assert len({*keys, *windows}) == 15 + 15
    assert np.array_equal(steps[0].got.keys, KEYS)


def test_a_method_twice_in_a_row_moves_images_to_two_places(tiles):
    twice = build(chain({"method": "shrinkpad"}, {"method": "shrinkpad"})).purify(tiles)
    once = build(settings_for("shrinkpad")).purify(tiles)
    again = build(settings_for("shrinkpad")).purify(replace(once, keys=step_keys(KEYS, 1)))
    assert np.array_equal(twice.pixels, again.pixels)
    assert not np.array_equal(twice.pixels, build(settings_for("shrinkpad")).purify(once).pixels)


def test_neighbours_and_order_change_no_byte(tiles):
    purifier = build(chain({"method": "shrinkpad"}, {"method": "jpeg"}, {"method": "shrinkpad", "share": 0.25}))
    straight = purifier.purify(tiles).cells()
    order = [3, 0, 4]
    (others,) = pack(list(tiles.cells()[order]), KEYS[order]).groups
    assert np.array_equal(purifier.purify(others).cells(), straight[order])


@pytest.mark.parametrize(
    ("residuals", "expected"), [((None, None), None), ((1.0, None), 1.0), ((None, 2.0), 2.0), ((1.0, 2.0), 2.0)]
)
def test_the_residual_is_that_of_the_last_step_that_has_one(tiles, residuals, expected):
    found = ChainPurifier([Recording(residual) for residual in residuals]).purify(tiles).residual
    assert (found is None) if expected is None else (found == expected).all()


def test_calls_add_up_and_one_step_that_sees_neighbours_is_enough():
    steps = [Recording(calls=2, digest="a"), Recording(calls=3, digest="b"), Recording()]
    purifier = ChainPurifier(steps)
    assert (purifier.calls, purifier.isolates) == (5, True)
    assert not ChainPurifier([*steps, Recording(isolates=False)]).isolates
    assert purifier.digest != ChainPurifier(steps[::-1]).digest
    assert ChainPurifier([Recording()]).digest == ""


def test_what_decides_the_bytes_names_all_of_each_step():
    build(settings_for("zip"))  # loaded, that module hides the builtin of its name in the package's own file
    facts, isolates = describe(chain({"method": "jpeg", "quality": 50}, {"method": "restore", "preset": "fast"}))
    restore, _ = describe(settings_for("restore", "fast"))
    assert facts == {"method": "chain", "steps": {"1": {"method": "jpeg", "quality": 50}, "2": restore}}
    assert isolates
    assert len(restore["prior"]) == 64  # a digest, not a path


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([], "purifier.steps: expected a chain's methods, such as .* found none"),
        ("median", "purifier.steps: expected a list, found 'median'"),
        (["median"], "purifier.steps, step 1: expected .*found 'median'"),
        ([{"preset": "fast"}], "purifier.steps, step 1: expected {method"),
        (
            [{"method": "none"}, {"method": "medain"}],
            "step 2: purifier.method: no method 'medain'. Did you mean 'median'",
        ),
        ([{"method": "restore", "preset": "fst"}], "step 1: purifier.preset: .* Did you mean 'fast'"),
        ([{"method": "naive", "scale": 3}], "step 1: purifier.scale: expected one of"),
        ([{"method": "naive", 1: 3}], "step 1: purifier.1: naive has no such setting"),
        ([{"method": "chain", "steps": []}], "step 1: expected another method, found a chain"),
        ([{"method": "restore", "seed": 1}], "step 1: seed is the whole job's. Set purifier.seed"),
    ],
)
def test_a_step_that_can_not_be_is_refused_by_its_number(steps, words):
    with pytest.raises(SettingsError, match=words):
        settings_for("chain", "default", {"steps": steps})


def test_a_chain_without_steps_is_refused():
    with pytest.raises(SettingsError, match="found none"):
        settings_for("chain")
