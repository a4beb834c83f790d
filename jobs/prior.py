"""`zipstage prior train` and `zipstage prior import`: where priors come from.

A training may be stopped at any moment; the same command goes on from the last checkpoint and ends
in the same weights. Its output folder holds the checkpoints, `restorer.safetensors` and its card.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - the field's usual name
from torch import Tensor

from jobs.training_config import TrainingConfig, load_training_config
from jobs.training_data import read_images, read_labels
from pipeline.errors import ConfigError
from zipstage.errors import PriorError
from zipstage.priors import load_prior, load_restorer
from zipstage.priors.builtin import export_restorer
from zipstage.priors.card import CardFacts, write_card
from zipstage.priors.features import SmallResNet
from zipstage.priors.network import Network, RestorationUNet
from zipstage.priors.spotter import PatchSpotter
from zipstage.priors.training import (
    Checkpoint,
    Progress,
    losses_by_noise,
    read_checkpoint,
    train_features,
    train_restorer,
    train_spotter,
)

FEATURES, SPOTTER, RESTORER = "features.pt", "spotter.pt", "restorer.pt"
WEIGHTS, CONFIG = "restorer.safetensors", "config.json"


def train(
    config_yaml: Path,
    data: Path,
    output: Path,
    watch: Callable[[Progress], None],
    device: str = "cpu",
    start: str | None = None,
) -> Path:
    """Train a restorer, or finish a training that was stopped, and write it with its card.

    Args:
        config_yaml: A `TrainingConfig`, such as `jobs/configs/prior-builtin.yaml`.
        data: Folder that holds the sets that the config names.
        output: Folder for checkpoints and result; made if it isn't there.
        watch: Called with the progress, about every ten seconds; `progress_line` makes a line of it.
        device: Where to train, `cpu` or `cuda`.
        start: A restorer to go on from, `builtin` or a file, with as many blocks or fewer; none begins anew.

    Returns:
        The restorer file, which `purifier.prior` takes.

    Raises:
        ConfigError: The config is wrong (the field is named), data is missing, or the folder holds
            another recipe's training.
        PriorError: `start` is no restorer, or the recipe's network doesn't hold it.
    """
    config = load_training_config(config_yaml)
    begun = None if start is None else load_restorer(start)
    output.mkdir(parents=True, exist_ok=True)
    _claim(output, config, begun.digest if begun else None)
    sets = [read_images(data / images.folder)[images.held_out :] for images in config.data]
    features = _features(config, data, sets, output / FEATURES, watch, device)
    train_spotter(sets[0], config.recipe, output / SPOTTER, watch, device, begun.spotter if begun else None)
    train_restorer(sets, features, config.recipe, output / RESTORER, watch, device, begun.network if begun else None)
    return export_checkpoint(config_yaml, data, output / RESTORER, output / WEIGHTS)


def export_checkpoint(config_yaml: Path, data: Path, checkpoint: Path, output: Path) -> Path:
    """Write the restorer of a checkpoint, finished or not, and its card beside it (`.md`).

    Args:
        config_yaml: What the training was given.
        data: Folder that holds its sets; only held-out images are read.
        checkpoint: `restorer.pt` of the training. `spotter.pt` beside it goes into the same file;
            `features.pt` tells the seconds it took.
        output: The `.safetensors` file to write.

    Returns:
        `output`.

    Raises:
        ConfigError: The config or the data is wrong.
        PriorError: No such checkpoint, or one of another recipe.
    """
    config = load_training_config(config_yaml)
    restorer = read_checkpoint(checkpoint)
    network = _filled(RestorationUNet(config.recipe.width, config.recipe.depths), restorer, checkpoint)
    seconds = {"restorer": restorer.seconds}
    if checkpoint.with_name(FEATURES).exists():
        seconds["features"] = read_checkpoint(checkpoint.with_name(FEATURES)).seconds
    spotter = None
    if checkpoint.with_name(SPOTTER).exists():
        spotting = read_checkpoint(checkpoint.with_name(SPOTTER))
        seconds["spotter"] = spotting.seconds
        spotter = _filled(PatchSpotter(), spotting, checkpoint.with_name(SPOTTER))
    facts = {"recipe": asdict(config.recipe), "images_seen": restorer.seen, "seconds": seconds, "terms": config.terms}
    digest = export_restorer(network, output, facts, spotter)
    held_out = _held_out(config, data)
    card = CardFacts(
        digest=digest,
        size_bytes=output.stat().st_size,
        recipe=config.recipe,
        images_seen=restorer.seen,
        seconds=seconds,
        data={images.folder: images.origin for images in config.data},
        terms=config.terms,
        notes=config.notes,
        losses_float32=losses_by_noise(network, held_out),
        losses_float16=losses_by_noise(load_restorer(output).network, held_out),
        held_out=len(held_out),
    )
    write_card(card, output.with_suffix(".md"))
    return output


def import_prior(
    source: Path,
    output: Path,
    *,
    image_size: int = 256,
    head_channels: int = 64,
    new_attention_order: bool = False,
) -> str:
    """Make a prior of an ADM checkpoint or of a diffusers folder, and read it once to be sure.

    Args:
        source: An ADM checkpoint (`.pt`, `.safetensors`), or a folder as diffusers saves it.
        output: Folder to make.
        image_size: Of an ADM checkpoint: pixels a side of the images it was trained on.
        head_channels: Of an ADM checkpoint: its `num_head_channels`.
        new_attention_order: Of an ADM checkpoint: its `use_new_attention_order`.

    Returns:
        The prior's digest.

    Raises:
        PriorError: Neither, or not readable, or the output exists.
    """
    from zipstage.priors.adm import import_adm  # here: diffusers takes seconds to import
    from zipstage.priors.adm_layout import AdmOptions

    if source.is_dir():
        return _copy_folder(source, output)
    import_adm(source, output, AdmOptions(image_size, head_channels, new_attention_order))
    return load_prior(output).digest


def progress_line(progress: Progress) -> str:
    """One line about a running training."""
    return (
        f"{progress.step}: {progress.images:,} of {progress.of_images:,} images, loss {progress.loss:.4f}, "
        f"{progress.images_per_s:.0f} images/s, {progress.seconds_left / 60:.0f} min left"
    )


def _claim(output: Path, config: TrainingConfig, start: str | None) -> None:
    """Refuse a folder where another recipe's checkpoints lie: going on from them would mix the two."""
    wanted = json.loads(config.model_dump_json(include={"recipe": True, "data": True})) | {"start": start}
    path = output / CONFIG
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name, value in wanted["recipe"].items() if found["recipe"].get(name) != value]
        differing += [name for name in ("data", "start") if found.get(name) != wanted[name]]
        if differing:
            raise ConfigError(
                f"{output}: holds the training of another recipe; these differ: {', '.join(differing)}. "
                f"Name another folder, or set them as they were."
            )
    path.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")


def _features(
    config: TrainingConfig,
    data: Path,
    sets: list[Tensor],
    checkpoint: Path,
    watch: Callable[[Progress], None],
    device: str,
) -> SmallResNet | None:
    if not config.recipe.feature_weight:
        return None
    images, pixels = next((i, s) for i, s in zip(config.data, sets, strict=True) if i.labelled)
    labels = read_labels(data / images.folder)[images.held_out :]
    return train_features(pixels, labels, config.recipe, checkpoint, watch, device)


def _filled(network: Network, checkpoint: Checkpoint, path: Path) -> Network:
    """The network with a checkpoint's averaged weights."""
    try:
        network.load_state_dict(checkpoint.averaged)
    except RuntimeError:
        raise PriorError(f"checkpoint {path}: its network isn't the recipe's: other widths or depths.") from None
    return network.eval().requires_grad_(False)


def _held_out(config: TrainingConfig, data: Path) -> Tensor:
    """The held-out images at 32x32, the size that the noise levels are meant for."""
    shrunk = []
    for images in config.data:
        if images.held_out:
            pixels = read_images(data / images.folder, images.held_out).float()
            shrunk.append(F.interpolate(pixels, (32, 32), mode="bilinear", antialias=True))
    return torch.cat(shrunk).round().clamp(0, 255).to(torch.uint8)


def _copy_folder(source: Path, output: Path) -> str:
    """Copy what a prior needs of a diffusers folder: JSON and safetensors, never a pickle."""
    digest = load_prior(source).digest
    if output.exists():
        raise PriorError(
            f"prior {output}: expected a folder to make, found one that exists. Remove it or name another."
        )
    pending = output.with_name(f"{output.name}.pending")
    for path in [*source.rglob("*.json"), *source.rglob("*.safetensors")]:
        target = pending / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    pending.rename(output)
    return digest
