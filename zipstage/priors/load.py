"""Finds what a setting `prior` names: the built-in weights, a restorer file, a diffusers folder."""

from __future__ import annotations

from pathlib import Path

import torch

from zipstage.errors import PriorError
from zipstage.priors.base import Prior
from zipstage.priors.builtin import BUILTIN, BuiltinPrior, load_restorer


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
    if path.is_dir():
        from zipstage.priors.diffusers_folder import load_diffusers_folder  # here: diffusers takes seconds to import

        return load_diffusers_folder(path, device)
    if str(name_or_path) != BUILTIN and path.suffix != ".safetensors":
        raise PriorError(
            f"prior {name_or_path}: expected `{BUILTIN}`, a diffusers folder or a restorer's .safetensors file, found "
            f"{'another file' if path.exists() else 'nothing there'}. "
            f"`zipstage prior import` makes a folder of a checkpoint."
        )
    return BuiltinPrior(load_restorer(name_or_path, device))
