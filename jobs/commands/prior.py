"""`zipstage prior import` and `zipstage prior train`: where priors come from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from jobs.commands.options import Verbose, command, note, show

if TYPE_CHECKING:
    from zipstage.priors.training import Progress

prior_app = command("prior", "zipstage prior train recipe.yaml --data data/ --output models/restorer")
import_app = command("import", "zipstage prior import 256x256_diffusion_uncond.pt models/adm256")
train_app = command("train", "zipstage prior train recipe.yaml --data data/ --output models/restorer")
prior_app.command(import_app)
prior_app.command(train_app)


@import_app.default
def import_command(
    source: Annotated[Path, Parameter(help="an ADM checkpoint (.pt, .safetensors), or a folder as diffusers saves it")],
    output: Annotated[Path, Parameter(help="folder to make")],
    *,
    image_size: Annotated[int, Parameter(help="of an ADM checkpoint: pixels a side of its images")] = 256,
    head_channels: Annotated[int, Parameter(help="of an ADM checkpoint: its num_head_channels")] = 64,
    new_attention_order: Annotated[
        bool, Parameter(negative="", help="of an ADM checkpoint: its use_new_attention_order")
    ] = False,
    verbose: Verbose = False,
) -> int:
    """Make a prior of an ADM checkpoint or of a diffusers folder, and read it once to be sure."""
    from jobs.prior import import_prior

    digest = import_prior(
        source, output, image_size=image_size, head_channels=head_channels, new_attention_order=new_attention_order
    )
    show(f"{output}: sha256 {digest}\nUse it with --purifier.method zip --purifier.prior {output}")
    return 0


@train_app.default
def train_command(
    recipe: Annotated[Path, Parameter(help="what to train on and how, such as jobs/configs/prior-builtin.yaml")],
    *,
    data: Annotated[Path, Parameter(help="folder that holds the sets that the recipe names")],
    output: Annotated[Path, Parameter(help="folder for checkpoints and the result; the same again goes on")],
    start: Annotated[
        str | None, Parameter(help="a restorer to go on from, builtin or a file; the recipe may add blocks")
    ] = None,
    device: Annotated[str, Parameter(help="cpu or cuda")] = "cpu",
    verbose: Verbose = False,
) -> int:
    """Train a restorer by a recipe; may be stopped at any moment, the same command goes on."""
    from jobs.prior import progress_line, train

    def watch(progress: Progress) -> None:
        note(progress_line(progress))

    path = train(recipe, data, output, watch, device, start)
    return show(f"{path}\nUse it with --purifier.prior {path}")
