"""What is installed, from what, and that CI can't pass over a test in silence."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
PINS = {
    canonicalize_name(line.split("==")[0]): Version(line.split("==")[1])
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if not line.startswith("#")
}


def _wanted_by_us() -> list[Requirement]:
    texts = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    texts += [text for extra in EXTRAS.values() for text in extra]
    return [requirement for text in texts if (requirement := Requirement(text)).name != "zipstage"]


def _reached(requirement: Requirement, seen: set[tuple[str, str]]) -> None:
    """Walk what the installed packages ask for, as pip does.

    What a package pins exactly itself needs no pin of ours: that is how a torch with CUDA brings its libraries.
    """
    name = canonicalize_name(requirement.name)
    exact = [specifier.operator for specifier in requirement.specifier] == ["=="]
    if (name, str(requirement)) in seen or (exact and name not in PINS):
        return
    try:
        needs = requires(name) or []
    except PackageNotFoundError:
        return  # of an extra that isn't installed here
    seen.add((name, str(requirement)))
    for need in map(Requirement, needs):
        extras = requirement.extras or {""}
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            _reached(need, seen)


@pytest.mark.parametrize("requirement", _wanted_by_us(), ids=str)
def test_each_requirement_admits_its_pinned_version(requirement: Requirement) -> None:
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_all_that_the_install_brings_is_pinned() -> None:
    seen: set[tuple[str, str]] = set()
    for requirement in _wanted_by_us():
        _reached(requirement, seen)
    names = {name for name, _ in seen}
    assert len(names) > 50
    assert names - set(PINS) == set()


def test_what_is_installed_here_is_what_is_pinned() -> None:
    other = {}
    for requirement in _wanted_by_us():
        name = canonicalize_name(requirement.name)
        try:
            found = Version(version(name))
        except PackageNotFoundError:
            continue
        if found.public != PINS[name].public:
            other[name] = str(found)
    assert other == {}


@pytest.mark.parametrize("path", ["Makefile", "infra/docker/Dockerfile"])
def test_pip_installs_nothing_without_the_pins(path: str) -> None:
    installs = [line for line in (ROOT / path).read_text().splitlines() if re.search(r"(pip|PIP\)) install", line)]
    assert installs
    assert [line for line in installs if "-c constraints.txt" not in line] == []


def test_the_wheel_holds_the_packages_and_their_data(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    for package in ("zipstage", "pipeline", "jobs"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-index"]
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    subprocess.run([*pip, *options, str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("zipstage-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        str(path.relative_to(source))
        for package in ("zipstage", "pipeline", "jobs")
        for path in (source / package).rglob("*")
        if path.is_file()
    }
    assert {name for name in expected if name.endswith((".py", "py.typed"))} <= held
    assert expected - held == set(), "files in the packages that the wheel leaves out: name them under package-data"
    assert {Path(name).name for name in held if "dist-info" in name} >= {"LICENSE", "NOTICE"}


@pytest.mark.parametrize(
    ("make_says", "allowed", "code"),
    [
        (["=== 3 passed in 0.1s ==="], "", 0),
        (["SKIPPED [1] tests/t.py:3: no GPU", "=== 2 passed, 1 skipped in 0.1s ==="], "", 1),
        (
            ["SKIPPED [1] tests/t.py:3: no GPU", "=== 2 passed, 1 skipped in 0.1s ==="],
            "# a reason\n\nt\\.py.*no GPU\n",
            0,
        ),
        (
            ["SKIPPED [1] tests/u.py:3: no S3", "=== 2 passed, 1 skipped in 0.1s ==="],
            "# a reason\n\nt\\.py.*no GPU\n",
            1,
        ),
        (["XFAIL tests/t.py::test_it - later", "=== 2 passed, 1 xfailed in 0.1s ==="], "", 1),
        (["=== no tests ran in 0.1s ==="], "", 1),
    ],
    ids=["nothing skipped", "skipped", "skipped as listed", "another skipped", "expected to fail", "no tests"],
)
def test_ci_fails_on_a_skip_that_is_not_listed(tmp_path: Path, make_says: list[str], allowed: str, code: int) -> None:
    done = _ci(tmp_path, ["@printf '%s\\n' " + " ".join(f"'{line}'" for line in make_says)], allowed)
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-1] == make_says[-1]


def test_ci_fails_when_make_test_fails(tmp_path: Path) -> None:
    assert _ci(tmp_path, ["@echo '=== 1 failed, 2 passed in 0.1s ==='", "@exit 1"], "").returncode != 0


def _ci(folder: Path, recipe: list[str], allowed: str) -> subprocess.CompletedProcess[str]:
    """The real `.ci/run`, in a folder where `make test` does what the recipe says."""
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    (folder / ".ci/skips.txt").write_text(allowed)
    (folder / "Makefile").write_text("test:\n" + "".join(f"\t{line}\n" for line in recipe))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run([folder / ".ci/run"], env=environment, capture_output=True, text=True, check=False)
