"""The built-in weights: one small network that is the restorer of `restore` and a diffusion prior.

A restorer file is fp16 safetensors that says in its metadata how the network is built; it is read
into float32. Trap: the network is told its noise level as `sigma` of an image of unit signal, the
samplers' x_t has sqrt(a) of it; `BuiltinPrior` does the division.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zipstage.errors import PriorError
from zipstage.priors.base import Prediction, from_x0
from zipstage.priors.network import RestorationUNet, place
from zipstage.priors.spotter import PatchSpotter
from zipstage.priors.weights import digest_of, read_tensors, write_tensors
from zipstage.schedule import schedule

BUILTIN = "builtin"
BUILTIN_PATH = Path(__file__).parent.parent / "weights" / "restorer.safetensors"
FORMAT = "zipstage-restorer-1"
SPOTTER = "spotter."
"""Prefix of the spotter's tensors in a restorer file."""


@dataclass(frozen=True, slots=True, eq=False)
class Restorer:
    """A restoration network, ready to be called, and the name of its weights.

    Args:
        network: In float32, channels_last, without gradients.
        digest: SHA-256 in hex of the file's tensors and the network's shape.
        spotter: What finds pasted patches for the first look; None in a file without one.
    """

    network: RestorationUNet
    digest: str
    spotter: PatchSpotter | None = None


def load_restorer(name_or_path: str | Path = BUILTIN, device: str | torch.device = "cpu") -> Restorer:
    """The restorer that ships with the package, or one that `zipstage prior train` made.

    Args:
        name_or_path: `builtin`, or a `.safetensors` file.
        device: Where the network is to run.

    Raises:
        PriorError: No such file, not a restorer, or tensors missing or left over.
    """
    path = BUILTIN_PATH if str(name_or_path) == BUILTIN else Path(name_or_path)
    if not path.is_file():
        raise PriorError(
            f"restorer {path}: no such file. Expected `{BUILTIN}` or a .safetensors file; "
            f"`zipstage prior train` makes one."
        )
    tensors, metadata = read_tensors(path)
    width, depths = _shape_of(metadata, path)
    network = RestorationUNet(width, depths)
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(SPOTTER)}
    _fill(network, own, path)
    spotter = PatchSpotter() if len(own) < len(tensors) else None
    if spotter is not None:
        of_spotter = {name.removeprefix(SPOTTER): t for name, t in tensors.items() if name.startswith(SPOTTER)}
        _fill(spotter, of_spotter, path)
        spotter = place(spotter, device).eval().requires_grad_(False)
    placed = place(network, device).eval().requires_grad_(False)
    return Restorer(placed, _digest(tensors, width, depths), spotter)


def export_restorer(
    network: RestorationUNet, path: Path, facts: Mapping[str, object], spotter: PatchSpotter | None = None
) -> str:
    """Write a restorer file: fp16, whole or not at all.

    Args:
        network: Trained; stays as it is.
        path: Ends in `.safetensors`.
        facts: Plain values about its making, kept in the file's metadata.
        spotter: Goes into the same file, so that both have one name and one digest.

    Returns:
        The digest that `load_restorer` will give.

    Raises:
        PriorError: A weight is not finite in fp16.
    """
    weights = dict(network.state_dict())
    if spotter is not None:
        weights |= {f"{SPOTTER}{name}": value for name, value in spotter.state_dict().items()}
    tensors = {name: value.detach().to("cpu", torch.float16) for name, value in weights.items()}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise PriorError(f"restorer {path}: {name} holds values that fp16 can't: the training went astray.")
    shape = {"format": FORMAT, "width": str(network.width), "depths": json.dumps(network.depths)}
    write_tensors(tensors, {**shape, "facts": json.dumps(facts, sort_keys=True)}, path)
    return _digest(tensors, network.width, network.depths)


class BuiltinPrior:
    """The restorer as a diffusion prior: at sigma = sqrt((1-a)/a), nothing else, it finds x0 in x_t / sqrt(a).

    It was trained up to sigma 80, which is t = 929; above, where x_t holds nothing of an image, it
    is told of more noise than it ever saw.
    """

    canvas = False

    def __init__(self, restorer: Restorer) -> None:
        self.digest = restorer.digest
        self._network = restorer.network

    @torch.no_grad()
    def predict(self, x_t: Float[Tensor, "b 3 h w"], t: int) -> Prediction:
        """What is under the noise; both sides of x_t are multiples of 4."""
        alpha_bar = schedule().alpha_bar(t)
        noisy = (x_t / alpha_bar**0.5).float().contiguous(memory_format=torch.channels_last)
        sigma = noisy.new_full((len(noisy),), ((1 - alpha_bar) / alpha_bar) ** 0.5)
        visible = noisy.new_ones((len(noisy), 1, *noisy.shape[2:]))
        x0: Tensor = self._network(noisy, sigma, torch.zeros_like(sigma), visible)
        return from_x0(x_t, x0.to(x_t.dtype), alpha_bar)


def load_builtin_prior(name_or_path: str | Path, device: str | torch.device = "cpu") -> BuiltinPrior:
    """The built-in restorer, or one of a file, as a diffusion prior.

    Raises:
        PriorError: There is no such file, or it isn't a restorer's.
    """
    return BuiltinPrior(load_restorer(name_or_path, device))


def _shape_of(metadata: Mapping[str, str], path: Path) -> tuple[int, tuple[int, int, int]]:
    if metadata.get("format") != FORMAT:
        raise PriorError(
            f"restorer {path}: expected a file of format {FORMAT} as `zipstage prior train` writes it, "
            f"found {metadata.get('format', 'no format')}."
        )
    full, half, quarter = json.loads(metadata["depths"])
    return int(metadata["width"]), (full, half, quarter)


def _fill(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise PriorError(
            f"restorer {path}: its tensors don't fit the network it names: {' '.join(str(error).split())}"
        ) from None


def _digest(tensors: Mapping[str, Tensor], width: int, depths: tuple[int, ...]) -> str:
    return digest_of(tensors, {"format": FORMAT, "width": width, "depths": list(depths)})
