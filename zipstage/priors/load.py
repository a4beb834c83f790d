"""Finds what a setting `prior` names: the built-in weights, a restorer file, a diffusers folder.

A new format is one file and one line in `FORMATS`.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import torch

from zipstage.errors import PriorError
from zipstage.priors.base import Prior
from zipstage.priors.builtin import BUILTIN

FOLDER, RESTORER = "folder", ".safetensors"

FORMATS: dict[str, str] = {
    RESTORER: "builtin:load_builtin_prior",
    FOLDER: "diffusers_folder:load_diffusers_folder",
}
"""By the ending of a file, or for folders: module below `zipstage.priors`, and the function there that loads it.

Modules load when they are needed: diffusers takes seconds to import.
"""


def load_prior(name_or_path: str | Path = BUILTIN, device: str | torch.device = "cpu") -> Prior:
    """A diffusion prior on a device.

    Args:
        name_or_path: `builtin`, a restorer file that `zipstage prior train` made, or a folder as
            diffusers saves it, such as `zipstage prior import` makes.
        device: Where it is to run.

    Raises:
        PriorError: There is no such thing, or it can't be read.
    """
    path = Path(name_or_path)
    kind = RESTORER if str(name_or_path) == BUILTIN else FOLDER if path.is_dir() else path.suffix
    if kind not in FORMATS:
        raise PriorError(
            f"prior {name_or_path}: expected `{BUILTIN}`, a diffusers folder or a restorer's .safetensors file, found "
            f"{'another file' if path.exists() else 'nothing there'}. "
            f"`zipstage prior import` makes a folder of a checkpoint."
        )
    module, function = FORMATS[kind].split(":")
    prior: Prior = getattr(importlib.import_module(f"zipstage.priors.{module}"), function)(name_or_path, device)
    return prior
