"""The report as people see it: in Chromium on wide and narrow screens, light and dark, on paper, by keyboard and mouse.

axe-core judges whether people can use it who don't see or hold a mouse. Pictures lie in `.drills/report`, to be
looked at.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from inprocess import InProcess
from making import encoded, job, picture, samples, write_tar
from outputs import many, write_output, write_run
from storing import write_classifier

from jobs.main import main
from pipeline import job as main_path

pytestmark = pytest.mark.drill

TESTS = Path(__file__).parents[1]
PICTURES = TESTS.parent / ".drills/report"
VIEWS = ("desktop", "dark", "phone", "phone-dark")
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def modules() -> str:
    made = subprocess.run([TESTS / "browser/environment.sh"], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(made.stderr.strip())
    return made.stdout.strip()


def looked_at(modules: str, page: Path, name: str) -> dict[str, Any]:
    """What a browser sees of a page."""
    folder = PICTURES / name
    folder.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium")
    assert chromium is not None  # else there was no environment
    command = ["node", TESTS / "browser/look.mjs", modules, chromium, page, folder]
    began = time.monotonic()
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "HOME": str(page.parent)}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = {**json.loads(done.stdout), "pictures": str(folder)}
    size = page.stat().st_size
    print(f"\n{name}: {size / 1e6:.2f} MB, {time.monotonic() - began:.0f} s of looking, pictures in {folder}")
    for view, seen in found["views"].items():
        violations = [one["rule"] for one in seen["violations"]]
        print(f"  {view}: {seen['scroll_width']} of {seen['width']} px wide, axe: {violations or '0 violations'}")
    print(f"  console: {found['console'] or 'silent'}; {found['mouse']['filter_ms']:.1f} ms a filter")
    return found


@pytest.fixture(scope="module")
def night(modules: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run with all that a page can hold: flips, a failed shard, broken and hostile samples, images of two sizes."""
    folder = tmp_path_factory.mktemp("night")
    long_key = "a_key_without_any_place_to_break_it_" * 6
    odd = [
        [(f"{EVIL}.png", encoded(picture(7)))],
        [(f"{long_key}.png", encoded(picture(8)))],
        *([(f"broken{i}.png", b"no image")] for i in range(3)),
    ]
    write_tar(folder / "in/cam1/000000.tar", [*samples(60), *odd])
    write_tar(folder / "in/cam2/000001.tar", samples(30, 100, 300, 200))
    (folder / "in/cut.tar").write_bytes(write_tar(folder / "whole.tar", samples(4)).read_bytes()[:4000])
    write_classifier(folder / "bright.onnx")
    config = job(
        folder,
        classifier__protocol="onnx",
        classifier__path=str(folder / "bright.onnx"),
        classifier__name="bright",
        classifier__input={"mean": [0.47]},  # some images are bright before and after
        classifier__labels=["a dark one", f"a bright one {EVIL}"],
        alert__min_answers=5,
    )
    summary = main_path.purify(config, lambda fact: None, InProcess, run="night")
    assert summary.exit_code == 1  # the shard that was cut
    return looked_at(modules, folder / "out/runs/night/report.html", "night")


@pytest.fixture(scope="module")
def large(modules: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The page of 100,000 samples."""
    folder = tmp_path_factory.mktemp("large")
    write_output(folder, {f"{n:02d}.tar": many(10_000, n) for n in range(10)})
    write_run(folder, "large", {"classifier": {"name": "box"}}, shards=10)
    began = time.monotonic()
    assert main(["report", str(folder), "--to", str(folder / "page.html")]) == 0
    print(f"\n100,000 rows: {time.monotonic() - began:.1f} s to make the page")
    assert (folder / "page.html").stat().st_size < 5_000_000
    return looked_at(modules, folder / "page.html", "large")


@pytest.fixture(scope="module", params=["night", "large"])
def seen(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.getfixturevalue(request.param)
    return found


def test_the_console_stays_silent_and_nothing_is_loaded(seen: dict[str, Any]) -> None:
    assert seen["console"] == []
    assert {request.partition(":")[0] for request in seen["requests"]} == {"file"}
    assert len({*seen["requests"]}) == 1  # the page itself


@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_no_violation(seen: dict[str, Any], view: str) -> None:
    assert seen["views"][view]["violations"] == []


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_sticks_out_at_the_side(seen: dict[str, Any], view: str) -> None:
    assert seen["views"][view]["scroll_width"] <= seen["views"][view]["width"]


def test_dark_is_dark_and_paper_is_white_with_black_ink(seen: dict[str, Any]) -> None:
    assert seen["views"]["desktop"]["paper"] == "rgb(255, 255, 255)"
    assert seen["views"]["dark"]["paper"] != "rgb(255, 255, 255)"
    assert seen["paper"] == {"filters": False, "color": "rgb(0, 0, 0)"}


def test_filters_work_by_keyboard(night: dict[str, Any]) -> None:
    found = night["keyboard"]
    assert found["outline"] == "solid"  # where the focus is can be seen
    assert found["all"]["told"] == f"all {found['all']['count']} samples shown"
    assert 0 < found["key_and_flip"]["count"] < found["key"]["count"] < found["all"]["count"]
    assert found["key"]["told"] == f"{found['key']['count']} of {found['all']['count']} samples shown"
    assert found["after_reset"] == found["all"]
    assert found["cards_in_order"]
    keys = found["first_keys"]
    assert all("00001" in key for key in keys)


def test_filters_work_by_mouse(night: dict[str, Any]) -> None:
    found = night["mouse"]
    assert found["status"]["count"] == 3
    assert found["shard"]["name"] == "cam1/000000.tar"
    assert 0 < found["shard"]["count"] < night["keyboard"]["all"]["count"]
    assert found["nothing"] == {"told": f"0 of {night['keyboard']['all']['count']} samples shown", "count": 0}
    assert all(values == sorted(values, reverse=True) for values in found["suspicions"])


def test_without_scripts_all_is_there_but_the_filters(seen: dict[str, Any]) -> None:
    assert seen["without_scripts"]["headings"] > 48  # each of the pictured samples has one
    assert seen["without_scripts"]["forms"] == 0


def test_it_prints(seen: dict[str, Any]) -> None:
    assert Path(seen["pictures"], "page.pdf").read_bytes().startswith(b"%PDF")
