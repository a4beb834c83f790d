"""The table of methods: each line builds, and behaves as its door says."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from types import ModuleType

import numpy as np
import pytest

from zipstage.purifiers import build, describe, profile_of
from zipstage.purifiers.controls.cellwise import Cellwise
from zipstage.purifiers.settings import METHODS, Method, method_of, settings_for
from zipstage.tiles import pack

LINES = [(method, preset) for method in METHODS if method != "chain" for preset in METHODS[method].presets]


@pytest.mark.parametrize("method", [method for method in METHODS if method != "chain"])
def test_a_line_of_the_table_builds_a_purifier_that_says_what_it_is(method):
    settings = settings_for(method)
    facts, isolates = describe(settings)
    assert facts["method"] == method_of(settings) == method
    purifier = build(settings)
    assert purifier.isolates is isolates is True
    assert (purifier.calls == 0) is (purifier.digest == "") is ("prior" not in facts)
    assert profile_of(purifier, "cpu")["numbers"] in ("uint8", "float32", "bfloat16")


@pytest.mark.parametrize(("method", "preset"), LINES)
def test_a_preset_passes_its_own_checks_and_differs_from_the_others(method, preset):
    settings = settings_for(method, preset, asdict(METHODS[method].presets[preset]))
    assert settings == METHODS[method].presets[preset]
    assert [settings_for(method, other) == settings for other in METHODS[method].presets].count(True) == 1


def test_a_new_purifier_is_one_file_and_one_line(monkeypatch):
    @dataclass(frozen=True, slots=True, kw_only=True)
    class InvertSettings:
        """`invert`: negatives."""

        top: int = 255

    class InvertPurifier(Cellwise):
        """Negatives."""

        def change(self, cells, keys):
            return self.settings.top - cells

    file = ModuleType("zipstage.purifiers.invert")
    file.InvertSettings, file.InvertPurifier = InvertSettings, InvertPurifier
    monkeypatch.setitem(sys.modules, file.__name__, file)
    monkeypatch.setitem(METHODS, "invert", Method("invert:InvertPurifier", {"default": InvertSettings()}))

    (tiles,) = pack([np.full((32, 32, 3), 5, np.uint8)], np.zeros((1, 2), np.uint64)).groups
    settings = settings_for("invert", "default", {"top": 250})
    assert (build(settings).purify(tiles).cells() == 245).all()
    assert describe(settings) == ({"method": "invert", "top": 250}, True)
    steps = settings_for("chain", "default", {"steps": [{"method": "invert"}, {"method": "invert"}]})
    assert (build(steps).purify(tiles).cells() == 5).all()
