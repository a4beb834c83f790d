from __future__ import annotations

import subprocess
import sys

RAYS = "[2026-11-21 21:40:19,121 E 4333 4635] core_worker.cc:2465: Actor with class name: 'MapWorker' has arguments"


def shown(program: str) -> list[str]:
    """The lines that a process has on its stderr."""
    begin = "import os, sys\nfrom jobs.native_stderr import kept_back\n"
    done = subprocess.run([sys.executable, "-c", begin + program], stderr=subprocess.PIPE, text=True, check=False)
    return done.stderr.splitlines()


def test_rays_core_is_not_heard_and_others_are_afterwards() -> None:
    program = f"""
with kept_back():
    print("drawn", file=sys.stderr)
    os.write(2, {RAYS!r}.encode() + b"\\n")
    os.write(2, b"a library's last words")
    print("drawn again", file=sys.stderr)
print("after", file=sys.stderr)
os.write(2, b"past Python\\n")
"""
    assert shown(program) == ["drawn", "drawn again", "a library's last words", "after", "past Python"]


def test_what_is_raised_comes_through_and_all_is_as_before() -> None:
    program = """
try:
    with kept_back():
        raise KeyboardInterrupt
except KeyboardInterrupt:
    os.write(2, b"interrupted\\n")
"""
    assert shown(program) == ["interrupted"]


def test_a_stderr_that_is_not_the_processs_own_is_left_alone() -> None:
    program = """
import io
real, sys.stderr = sys.stderr, io.StringIO()
with kept_back():
    os.write(2, b"at once\\n")
    print("elsewhere", file=sys.stderr)
print(sys.stderr.getvalue().strip(), file=real)
"""
    assert shown(program) == ["at once", "elsewhere"]
