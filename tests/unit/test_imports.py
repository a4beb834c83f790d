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
def test_a_package_lists_its_public_names(name: str) -> None:
    package = importlib.import_module(name)
    listed = getattr(package, "__all__", [])
    assert len(listed) == len(set(listed))
    assert [n for n in listed if not hasattr(package, n)] == []
    assert _public_names(package) - set(listed) == set()


def _public_names(package: ModuleType) -> set[str]:
    """Names without an underscore that the package or a module in it defines; what it merely uses is not its own."""
    return {
        name
        for name, value in vars(package).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and getattr(value, "__module__", package.__name__).startswith(package.__name__)
    }
