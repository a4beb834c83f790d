"""`zipstage demo`: the whole stage on this machine, against a classifier that has a backdoor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from jobs.commands.options import Verbose, command, ray_kept_quiet
from jobs.commands.purify import ray_engine

demo_app = command("demo", "zipstage demo --images 400")


@demo_app.default
def demo_command(
    *,
    output: Annotated[Path, Parameter(help="folder for all of it")] = Path("demo-out"),
    images: Annotated[int, Parameter(help="images to draw; half of them get a trigger")] = 2_000,
    seed: Annotated[int, Parameter(help="of the drawing")] = 0,
    method: Annotated[str, Parameter(help="the purifier's method")] = "restore",
    preset: Annotated[str, Parameter(help="its preset")] = "default",
    verbose: Verbose = False,
) -> int:
    """Draw images, poison half of them, ask a backdoored classifier before and after purification.

    Prints, before and after: accuracy on clean images (CA), how often a trigger succeeds (ASR), and accuracy on
    triggered images (PA). Takes 1 to 3 minutes on two cores.
    """
    from rich.console import Console

    from jobs.demo.demo import Demo, run
    from pipeline.progress import View
    from pipeline.screen import watching

    console = Console(file=sys.stdout)  # one for table and live view, which would else draw over each other
    with ray_kept_quiet(verbose), watching(View(), console) as watch:
        return run(Demo(output, images, seed, method, preset), watch, console, ray_engine(verbose))
