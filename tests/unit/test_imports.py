"""What an import loads, and that packages name what they hold."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import jobs
import pipeline
import zipstage

PACKAGES = [
    name
    for root in (zipstage, pipeline, jobs)
    for name in (
        root.__name__,
        *(module.name for module in pkgutil.walk_packages(root.__path__, root.__name__ + ".") if module.ispkg),
    )
]


def _loaded_by(module: str) -> set[str]:
    """The modules that a fresh interpreter holds after the import."""
    program = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("zipstage", {"ray", "boto3", "obstore"}),
        ("zipstage.purifiers", {"ray", "boto3", "obstore"}),
        ("pipeline.config", {"ray", "torch"}),
    ],
)
def test_an_import_leaves_out_what_is_heavy_or_not_its_business(module: str, unwanted: set[str]) -> None:
    assert _loaded_by(module) & unwanted == set()


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_lists_its_public_names_and_no_others(name: str) -> None:
    package = importlib.import_module(name)
    listed = getattr(package, "__all__", [])
    assert len(listed) == len(set(listed))
    assert [n for n in listed if not hasattr(package, n)] == []
    assert _defined_in(package) - set(listed) == set()


def _defined_in(package: ModuleType) -> set[str]:
    """The public functions and classes of the package's own file; what it imports, strict mypy keeps private."""
    return {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == package.__name__
    }
