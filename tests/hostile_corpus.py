"""The hostile corpus: what may come as input, and what each gets. Run by hand, it writes the corpus.

    python tests/hostile_corpus.py FOLDER     the shards, to try anything on
    python tests/hostile_corpus.py --table    the table of docs/hostile-input.md

Images are samples of one shard, so that a neighbour would show harm; tars and names are a shard each.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hostile_images import IMAGES, ImageCase, png
from hostile_tars import GOOD, PIXEL, SOUND, TARS, TarCase, after_good, before_good, file, header, rows_of, tar
from making import Members, samples, write_tar

LIMITS: dict[str, Any] = {"limits__max_member_mib": 16, "limits__max_sample_mib": 20}
"""Of the job over the corpus: the default ones would need files of gigabytes."""

IMAGES_SHARD = "images.tar"


@dataclass(frozen=True)
class NameCase:
    """A name that a shard has where it is received.

    Args:
        about: What it is, for the table.
        name: The name below the input, as bytes of the file system.
        gets: `ok`; `refused`: this shard fails by name; `stops`: the listing ends there, and so does the job.
    """

    about: str
    name: str
    gets: Literal["ok", "refused", "stops"]


NAMES = [
    NameCase("blanks, also first and last", " a / b .tar", "ok"),
    NameCase("percent signs that look like an escape", "a%20b%2Fc%.tar", "ok"),
    NameCase("letters beyond ASCII, composed", "caf\u00e9.tar", "ok"),
    NameCase("letters beyond ASCII, decomposed", "cafe\u0301.tar", "ok"),
    NameCase("signs that patterns are made of", "a*b?[c]{d}.tar", "ok"),
    NameCase("signs that a shell or a URL is made of", "~$(x)`y`;#'\"&|:@=+,!.tar", "ok"),
    NameCase("dots", "..a/...tar", "ok"),
    NameCase("a backslash", "a\\b.tar", "refused"),
    NameCase("a sign that turns the direction of writing", "a\u202egnp.tar", "refused"),
    NameCase("a sign that shows nothing", "a\u200bb.tar", "refused"),
    NameCase("more than 200 bytes", "n" * 220 + ".tar", "refused"),
    NameCase("a new line", "a\nb.tar", "stops"),
    NameCase("a control character", "a\x1b[2Jb.tar", "stops"),
    NameCase("bytes that aren't UTF-8", "a\udcffb.tar", "stops"),
]

EVERY_PIXEL = [f"{i:05d}" for i in range(50_000)]

LONG: list[TarCase] = [
    TarCase(
        "50,000 samples of one pixel",
        lambda: tar(*(file(f"{key}.png", PIXEL) for key in EVERY_PIXEL)),
        rows_of(EVERY_PIXEL),
    ),
    TarCase(
        "an image just below the limit of pixels",
        lambda: before_good(file("a.png", png(7000, 7000, 8, 0, bytes(7001 * 7000)))),
        [("a", "ok"), GOOD],
    ),
    TarCase(
        "gzip, and a member of 900 MiB of zeros",
        lambda: gzip.compress(tar(header("a.png", 900 << 20), bytes(900 << 20), SOUND), 1),
        [("a", "rejected"), GOOD],
        says="limits.max_member_mib",
        suffix=".tar.gz",
    ),
    TarCase(
        "a gzip bomb: 4 GiB behind the end",
        lambda: gzip.compress(after_good(), 1) + gzip.compress(bytes(1 << 28), 1) * 16,
        None,
        None,
        "would expand",
        suffix=".tar.gz",
    ),
]
"""Cases that take minutes, for the drill."""


def key_of(index: int) -> str:
    return f"{index:03d}"


def image_members() -> Iterator[Members]:
    for index, case in enumerate(IMAGES):
        key = key_of(index)
        yield [(f"{key}.{case.suffix}", case.make()), (f"{key}.cls", str(index).encode())]


def shard_of(index: int, case: TarCase) -> str:
    return f"tars/{index:03d}{case.suffix}"


def write_images(folder: Path) -> None:
    write_tar(folder / IMAGES_SHARD, image_members())


def write_tars(folder: Path, cases: list[TarCase]) -> None:
    for index, case in enumerate(cases):
        path = folder / shard_of(index, case)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(case.make())


def write_names(folder: Path, *gets: str) -> None:
    """Sound shards under the names that get what is asked for."""
    for case in NAMES:
        if case.gets in gets:
            write_tar(folder / "names" / case.name, samples(1))


def table() -> Iterator[str]:
    """The lines of the docs' table, from the expectations."""
    yield "### Images"
    yield ""
    yield "| a sample's image | gets | the row says |"
    yield "|---|---|---|"
    for image in IMAGES:
        yield f"| {image.about} | `{image.gets}`{_kept(image)} | {_said(image.says)} |"
    yield ""
    yield "### Shards"
    yield ""
    yield "| a shard | gets | the row, or the shard's line, says |"
    yield "|---|---|---|"
    for case in [*TARS, *LONG]:
        yield f"| {case.about} | {_outcome(case)} | {_said(case.says)} |"
    yield ""
    yield "### Names of shards"
    yield ""
    yield "| a name with | gets |"
    yield "|---|---|"
    outcomes = {
        "ok": "purified under that name",
        "refused": "the shard fails by name, the others go on",
        "stops": "the job ends before it begins, and names it: a store can't list it",
    }
    for name in NAMES:
        yield f"| {name.about} | {outcomes[name.gets]} |"


def _kept(case: ImageCase) -> str:
    names = {"alpha": "alpha", "exif": "EXIF", "icc": "profile"}
    return f", with {', '.join(names[kept] for kept in case.keeps)}" if case.keeps else ""


def _said(text: str) -> str:
    return f"... {text} ..." if text else ""


def _outcome(case: TarCase) -> str:
    if case.rows is None:
        where = "before the first sample is sure" if case.last_good is None else f"last good key `{case.last_good}`"
        return f"**fails**, {where}"
    counts: dict[str, int] = {}
    for _, status in case.rows:
        counts[status] = counts.get(status, 0) + 1
    found = [f"{count:,} `{status}`" for status, count in counts.items()] or ["no rows"]
    return ", ".join([*found, f"{case.skipped} members named in the record"] if case.skipped else found)


def main(arguments: list[str]) -> int:
    if arguments == ["--table"]:
        print("\n".join(table()))
        return 0
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    write_images(folder)
    write_tars(folder, TARS)
    write_names(folder, "ok", "refused")
    print(f"{len(IMAGES)} images in {folder / IMAGES_SHARD}, {len(TARS)} shards in {folder / 'tars'}")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    sys.exit(main(sys.argv[1:]))
