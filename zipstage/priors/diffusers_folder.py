"""A folder as diffusers saves it, as a prior: an unconditional UNet2DModel, alone or in a pipeline.

Only safetensors are read, never a pickle. Trap: the samplers count in the linear schedule of 1000
steps; a network that was trained on another one is refused, since its timesteps mean other noise.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import UNet2DModel
from jaxtyping import Float
from torch import Tensor, nn

from zipstage.errors import PriorError
from zipstage.priors.base import Prediction, from_eps, from_v, from_x0
from zipstage.priors.network import place
from zipstage.priors.weights import digest_of
from zipstage.schedule import schedule
from zipstage.tiles import TILE_PX

PredictionType = Literal["epsilon", "v_prediction", "sample"]
_FROM = {"epsilon": from_eps, "v_prediction": from_v, "sample": from_x0}
_LINEAR = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "num_train_timesteps": 1000}


class DiffusersPrior:
    """A UNet2DModel as a prior; of a learned variance (6 channels) the first three count.

    One that was trained on 256 px takes whole tiles; others take cells, at their best those of `sample_px`.

    Args:
        network: A UNet2DModel in float32, placed, without gradients.
        prediction_type: What it was trained to give.
        digest: Of weights and configuration.
        sample_px: Pixels a side of the images it was trained on, where known.
        levels: Its resolutions; each after the first halves the sides.
    """

    def __init__(
        self, network: nn.Module, prediction_type: PredictionType, digest: str, sample_px: int | None, levels: int
    ) -> None:
        self.network, self.prediction_type, self.digest = network, prediction_type, digest
        self.sample_px, self.canvas = sample_px, sample_px == TILE_PX
        self._multiple = 2 ** (levels - 1)

    @torch.no_grad()
    def predict(self, x_t: Float[Tensor, "b 3 h w"], t: int) -> Prediction:
        """What is under the noise.

        Raises:
            PriorError: A side that the network can't halve often enough.
        """
        if x_t.shape[2] % self._multiple or x_t.shape[3] % self._multiple:
            raise PriorError(
                f"prior: expected sides that are multiples of {self._multiple}, found {x_t.shape[2]}x{x_t.shape[3]}."
            )
        images = x_t.float().contiguous(memory_format=torch.channels_last)
        output: Tensor = self.network(images, t, return_dict=False)[0][:, :3]
        return _FROM[self.prediction_type](x_t, output.to(x_t.dtype), schedule().alpha_bar(t))


def load_diffusers_folder(folder: Path, device: str | torch.device = "cpu") -> DiffusersPrior:
    """The prior in a folder: a pipeline's (`unet/` and `scheduler/`), or a network's own.

    Without a scheduler the network is taken to predict eps on the linear schedule.

    Args:
        folder: Holds `unet/config.json` or `config.json`, and safetensors beside it.
        device: Where the network is to run.

    Raises:
        PriorError: No such network, another kind of it, another schedule, or weights that don't fit.
    """
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    config = _checked_config(unet)
    prediction_type = _prediction_type(folder / "scheduler" / "scheduler_config.json")
    network = _load_network(unet)
    facts = {name: value for name, value in config.items() if not name.startswith("_")}
    digest = digest_of(network.state_dict(), {"unet": facts, "prediction_type": prediction_type})
    placed: nn.Module = place(network, device).eval().requires_grad_(False)
    sample = network.config["sample_size"]
    sample_px = max(sample) if isinstance(sample, (list, tuple)) else sample
    return DiffusersPrior(placed, prediction_type, digest, sample_px, len(network.config["block_out_channels"]))


def _checked_config(unet: Path) -> dict[str, Any]:
    config = _read_json(unet / "config.json")
    if config.get("_class_name") != "UNet2DModel":
        raise PriorError(f"prior {unet}: expected an unconditional UNet2DModel, found {config.get('_class_name')}.")
    if config.get("num_class_embeds") or config.get("class_embed_type"):
        raise PriorError(f"prior {unet}: expected an unconditional UNet2DModel, found a class-conditional one.")
    channels = config.get("in_channels", 3), config.get("out_channels", 3)
    if channels not in ((3, 3), (3, 6)):
        raise PriorError(f"prior {unet}: expected 3 channels in and 3 or 6 out, found {channels[0]} and {channels[1]}.")
    return config


def _prediction_type(scheduler: Path) -> PredictionType:
    if not scheduler.exists():
        return "epsilon"
    config = _read_json(scheduler)
    for name, wanted in _LINEAR.items():
        if config.get(name, wanted) != wanted:
            raise PriorError(
                f"prior {scheduler}: expected {name} {wanted} (the linear schedule), found {config[name]}."
            )
    for name in ("trained_betas", "rescale_betas_zero_snr"):
        if config.get(name):
            raise PriorError(f"prior {scheduler}: expected the linear schedule, found {name} set.")
    prediction_type: PredictionType = config.get("prediction_type", "epsilon")
    if prediction_type not in _FROM:
        raise PriorError(f"prior {scheduler}: expected prediction_type {', '.join(_FROM)}, found {prediction_type}.")
    return prediction_type


def _load_network(unet: Path) -> Any:  # noqa: ANN401 - a UNet2DModel, whose bases are unknown to the type checker
    if not list(unet.glob("*.safetensors")):
        pickles = ", ".join(sorted(path.name for path in unet.glob("*.bin"))) or "no weights"
        raise PriorError(
            f"prior {unet}: expected .safetensors, found {pickles}. Pickles are not opened: save it again with "
            f"diffusers' `save_pretrained(..., safe_serialization=True)`."
        )
    try:
        network, loaded = UNet2DModel.from_pretrained(
            unet, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, TypeError) as error:  # diffusers raises each of these for a bad folder
        raise PriorError(f"prior {unet}: can't be read: {' '.join(str(error).split())}") from None
    for what in ("missing_keys", "unexpected_keys"):
        if loaded[what]:
            raise PriorError(f"prior {unet}: its weights have {what.replace('_', ' ')}: {', '.join(loaded[what][:8])}.")
    return network


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PriorError(
            f"prior {path}: can't be read: {error.strerror}. Expected a folder as diffusers saves it."
        ) from None
    except ValueError:
        raise PriorError(f"prior {path}: expected JSON, found something else.") from None
    if not isinstance(values, dict):
        raise PriorError(f"prior {path}: expected a JSON object, found a {type(values).__name__}.")
    return values
