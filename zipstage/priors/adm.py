"""Import of an ADM checkpoint into a diffusers folder, once, by hand.

Nearly all of the configuration is read off the tensors' shapes; three facts aren't in them and
come as options. Every tensor is accounted for. This is the only place where somebody else's pickle
is opened, and only for tensors (`weights_only`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from torch import Tensor, nn

from zipstage.errors import PriorError
from zipstage.priors.adm_layout import (
    QKV,
    AdmOptions,
    Shapes,
    infer_layout,
    map_names,
    some,
    split_qkv,
    unet_arguments,
)
from zipstage.priors.weights import read_tensors


def import_adm(checkpoint: Path, output: Path, options: AdmOptions | None = None) -> Path:
    """Write an ADM checkpoint as a diffusers folder that `load_prior` reads.

    Args:
        checkpoint: A `.pt` of tensors, or a `.safetensors`, under ADM's own names.
        output: Folder to make; it appears whole.
        options: What the shapes don't tell.

    Returns:
        `output`.

    Raises:
        PriorError: Not such a checkpoint (missing and left-over tensors are named), or the folder exists.
    """
    if output.exists():
        raise PriorError(
            f"prior {output}: expected a folder to make, found one that exists. Remove it or name another."
        )
    tensors = _read_checkpoint(checkpoint)
    network = network_from_adm(tensors, options or AdmOptions(), str(checkpoint))
    learned_variance = tensors["out.2.weight"].shape[0] == 6
    scheduler = DDPMScheduler(variance_type="learned_range" if learned_variance else "fixed_large")
    pipeline: Any = DDPMPipeline(network, scheduler)  # Any: diffusers' bases are unknown to the type checker
    pending = output.with_name(f"{output.name}.pending")
    pipeline.save_pretrained(pending, safe_serialization=True)
    for weights in pending.rglob("*.safetensors"):  # written for their owner alone; the rest follows the umask
        weights.chmod((pending / "model_index.json").stat().st_mode)
    return pending.rename(output)


def network_from_adm(tensors: Mapping[str, Tensor], options: AdmOptions, where: str) -> nn.Module:
    """The network of an ADM checkpoint as a UNet2DModel, in float32.

    Args:
        tensors: Under ADM's names.
        options: What the shapes don't tell.
        where: What messages call the checkpoint.

    Raises:
        PriorError: Tensors are missing, left over or of another shape.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    layout = infer_layout(shapes, where)
    with torch.device("meta"):
        network: Any = UNet2DModel(**unet_arguments(layout, options, where))  # Any: as above
    sources = map_names(layout, list(network.state_dict()))
    _account_for_all(shapes, sources, where)
    converted = {name: _convert(name, tensors[source], options) for name, source in sources.items()}
    _compare_shapes(network, converted, sources, where)
    network.load_state_dict(converted, assign=True)
    ready: nn.Module = network.eval().requires_grad_(False)
    return ready


def _convert(name: str, source: Tensor, options: AdmOptions) -> Tensor:
    module, _, kind = name.rpartition(".")
    last = module.rpartition(".")[2]
    tensor = source.float()
    if ".attentions." in name and kind == "weight" and tensor.ndim == 3:
        tensor = tensor.squeeze(-1)  # ADM attends by 1x1 convolutions over a line, diffusers by linear layers
    return split_qkv(tensor, QKV.index(last), options).contiguous() if last in QKV else tensor


def _account_for_all(shapes: Shapes, sources: Mapping[str, str], where: str) -> None:
    missing = sorted(set(sources.values()) - shapes.keys())
    unexpected = sorted(shapes.keys() - set(sources.values()))
    if missing or unexpected:
        raise PriorError(
            f"{where}: its tensors aren't those of the ADM network that its shapes describe. "
            f"Missing: {some(missing)}. Unexpected: {some(unexpected)}."
        )


def _compare_shapes(
    network: nn.Module, converted: Mapping[str, Tensor], sources: Mapping[str, str], where: str
) -> None:
    for name, wanted in network.state_dict().items():
        if converted[name].shape != wanted.shape:
            raise PriorError(
                f"{where}: {sources[name]}: expected what gives {tuple(wanted.shape)}, "
                f"found {tuple(converted[name].shape)}."
            )


def _read_checkpoint(checkpoint: Path) -> dict[str, Tensor]:
    if checkpoint.suffix == ".safetensors":
        return read_tensors(checkpoint)[0]
    try:
        with warnings.catch_warnings():  # of odd pickles; they are refused or read, no third
            warnings.simplefilter("ignore")
            tensors = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise PriorError(f"{checkpoint}: no such file. Expected an ADM checkpoint (.pt or .safetensors).") from None
    except Exception as error:  # noqa: BLE001 - on hostile bytes the unpickler raises whatever it trips over
        # torch's own words tell people how to open it all the same, which runs what is in it.
        raise PriorError(
            f"{checkpoint}: expected a .pt file of tensors alone, found one that is damaged or holds other objects "
            f"({type(error).__name__}). Get the weights as .safetensors."
        ) from None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise PriorError(f"{checkpoint}: expected one dictionary of tensors (the model's own), found something else.")
    return tensors
