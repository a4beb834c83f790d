"""The first minutes of somebody new: a clone, an install without caches, a folder of pictures, and a purified shard.

Takes what the install takes: some 2 GB come through pip, as it is configured on this machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from making import encoded, picture

pytestmark = [pytest.mark.drill, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
CLASSES = ("cat", "dog", "frog", "horse")
EACH = 100


class Newcomer:
    """Somebody with a home of their own, nothing in it, who types commands.

    Args:
        folder: Holds the home and the clone.
    """

    def __init__(self, folder: Path) -> None:
        self.clone, self.home = folder / "zipstage", folder / "home"
        self.home.mkdir()
        kept = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
        path = f"{self.clone}/.venv/bin:{os.environ['PATH']}"
        self._environment = {**kept, "HOME": str(self.home), "XDG_CACHE_HOME": str(self.home / "cache"), "PATH": path}

    def types(self, *command: str, cwd: Path | None = None) -> tuple[str, float]:
        """What a command prints, and how many seconds it takes."""
        began = time.monotonic()
        done = subprocess.run(
            command, cwd=cwd or self.home, env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout, time.monotonic() - began


def draw_pictures(folder: Path) -> None:
    for number in range(len(CLASSES) * EACH):
        below = folder / CLASSES[number % len(CLASSES)]
        below.mkdir(parents=True, exist_ok=True)
        name, kind = (f"IMG {number}.v2.png", "PNG") if number % 2 else (f"DSC{number}.JPG", "JPEG")
        (below / name).write_bytes(encoded(picture(number), kind))


def test_from_a_clone_to_the_first_purified_shard_of_ones_own_pictures(tmp_path: Path) -> None:
    if shutil.which("git") is None or shutil.which("make") is None:
        pytest.skip("git and make are needed")
    newcomer = Newcomer(tmp_path)
    draw_pictures(newcomer.home / "pictures")
    took = {}
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(newcomer.clone)], check=True)
    _, took["install"] = newcomer.types("make", "install", cwd=newcomer.clone)
    _, took["pack"] = newcomer.types("zipstage", "pack", "pictures", "shards")
    began = time.time()
    told, took["purify"] = newcomer.types("zipstage", "purify", "--input", "shards", "--output", "purified")
    (record,) = (newcomer.home / "purified/records").iterdir()
    took["first shard"] = took["pack"] + record.stat().st_mtime - began
    print(told)
    told, took["show"] = newcomer.types("zipstage", "show", "purified", "cat/DSC0.JPG")
    print(told)
    newcomer.types("zipstage", "verify", "purified")
    print(", ".join(f"{name} {seconds:.0f} s" for name, seconds in took.items()))
    assert (newcomer.home / "show-cat_DSC0.png").exists()
    with tarfile.open(newcomer.home / "purified/shards/000000.tar") as tar:
        assert sum(name.endswith(".png") for name in tar.getnames()) == len(CLASSES) * EACH
