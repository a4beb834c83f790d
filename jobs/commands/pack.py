"""`zipstage pack`: shards out of a folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from jobs.commands.options import Verbose, command, note, show

pack_app = command("pack", "zipstage pack pictures/ shards/\nzipstage purify --input shards/ --output purified/")


@pack_app.default
def pack_command(
    folder: Annotated[str, Parameter(help="folder of pictures, with those below it")],
    output: Annotated[str, Parameter(help="folder or s3:// prefix for the shards")],
    /,
    *,
    labels: Annotated[Path | None, Parameter(negative="", help="CSV of path,class in place of folders")] = None,
    no_labels: Annotated[bool, Parameter(negative="", help="pictures without classes")] = False,
    samples_per_shard: Annotated[int, Parameter(help="pictures in a shard, at most")] = 10_000,
    shard_size: Annotated[float, Parameter(help="MiB of a shard, about")] = 256,
    verbose: Verbose = False,
) -> int:
    """Make WebDataset shards of a folder of pictures.

    A sub-folder is a class, numbered in sorted order (classes.txt); a folder without sub-folders has none. Pictures
    are copied as they are. The same folder gives the same bytes.
    """
    from jobs.pack.pack import Wanted, pack, told
    from pipeline.errors import ConfigError
    from pipeline.progress import size_of

    if "://" in folder:
        raise ConfigError(f"{folder}: expected a folder on this machine. Fetch the pictures first.")
    if samples_per_shard < 1 or shard_size <= 0:
        raise ConfigError("--samples-per-shard and --shard-size: expected more than 0.")
    if labels is not None and no_labels:
        raise ConfigError("--labels and --no-labels: expected one of them, found both.")
    wanted = Wanted(Path(folder), output, labels, not no_labels, samples_per_shard, shard_size)
    packed = pack(wanted, note)
    return show(told(packed, output, size_of(packed.size_bytes)))
