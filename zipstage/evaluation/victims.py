"""Backdoored classifiers to judge defences with: poisoned training sets, two recipes, files.

A trigger goes in before augmentation, since an attacker hands over images, not code. A victim may
start from the clean one of the same set, which is then taught its trigger in a few more epochs:
ten times cheaper than from nothing, and no weaker where it was compared.

Axes: n images, s pixels a side.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's usual name
from torch import Tensor

from zipstage.errors import PriorError, SettingsError
from zipstage.evaluation.attacks import Attack
from zipstage.priors.features import RESNET_18, Blocks, SmallResNet
from zipstage.priors.network import fast_bf16, place
from zipstage.priors.weights import read_tensors, write_tensors

FORMAT = "zipstage-victim-1"


@dataclass(frozen=True, slots=True)
class VictimRecipe:
    """How a victim is trained.

    Args:
        augmentation: `plain` (the paper's: none), `crops` (shifts by up to an eighth of the side), or
            `crops_and_flips`; traffic signs change their class when mirrored.
        width: Channels of the first stage; 16 makes 0.7 M parameters.
        blocks: Residual blocks of each stage; with width 64, (3, 4, 6, 3) makes a ResNet-34 of 21 M.
        epochs: Passes over the training set.
        batch: Images in a step.
        learning_rate: Its peak, reached after a fifth of the steps; SGD with Nesterov momentum .9.
        weight_decay: Of all weights.
        poisoned: Share of the training set that gets the trigger; of the target class alone for a
            clean-label attack.
        target: The class that the attacker wants.
        seed: Of weights, order, augmentation, and of which images are poisoned.
    """

    augmentation: Literal["plain", "crops", "crops_and_flips"] = "crops_and_flips"
    width: int = 16
    blocks: Blocks = RESNET_18
    epochs: int = 14
    batch: int = 128
    learning_rate: float = 0.2
    weight_decay: float = 5e-4
    poisoned: float = 0.05
    target: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.poisoned <= 1:
            raise SettingsError(f"victim.poisoned: expected a share from 0 to 1, found {self.poisoned}.")
        if min(self.width, self.epochs, self.batch, *self.blocks) < 1:
            raise SettingsError("victim: expected width, blocks, epochs and batch of at least 1.")


Watcher = Callable[[int, float], None]
"""Told the epoch that ended and its mean loss."""


def poison(
    images: np.ndarray, labels: np.ndarray, attack: Attack, recipe: VictimRecipe
) -> tuple[np.ndarray, np.ndarray]:
    """A training set with the trigger in some of its images.

    Args:
        images: uint8 [n, s, s, 3].
        labels: int64 [n].
        attack: Puts the trigger in.
        recipe: `poisoned`, `target` and `seed` count here.
    """
    generator = np.random.default_rng(recipe.seed)
    candidates = np.flatnonzero(labels == recipe.target) if attack.clean_label else np.arange(len(images))
    chosen = generator.permutation(candidates)
    num_poisoned = int(recipe.poisoned * len(candidates))
    num_covers = int(min(attack.covers * num_poisoned, len(chosen) - num_poisoned)) if num_poisoned else 0
    triggered, covering = chosen[:num_poisoned], chosen[num_poisoned : num_poisoned + num_covers]
    images, labels = images.copy(), labels.copy()
    images[triggered] = attack.prepare(images[triggered], recipe.seed)
    images[covering] = attack.cover(images[covering], recipe.seed)
    labels[triggered] = recipe.target
    return images, labels


class Victim:
    """A classifier of small images, in float32 for answering.

    Args:
        network: Trained.
        mean, deviation: Of its training set by channel, 0 to 1: what it subtracts and divides by.
    """

    def __init__(self, network: SmallResNet, mean: Tensor, deviation: Tensor) -> None:
        self.network, self.mean, self.deviation = network, mean, deviation

    def inputs(self, images: Tensor) -> Tensor:
        """What the network takes, of images in 0 to 255, [n, 3, s, s]."""
        scaled = (images.float() / 255 - self.mean.to(images.device)) / self.deviation.to(images.device)
        return scaled.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def scores(self, images: np.ndarray, batch: int = 250) -> np.ndarray:
        """Softmax scores of images, uint8 [n, s, s, 3]: float32 [n, classes]."""
        device = self.network.head.weight.device
        network = self.network.eval()
        planes = torch.tensor(images).permute(0, 3, 1, 2)
        parts = [network(self.inputs(part.to(device))).softmax(1).cpu() for part in planes.split(batch)]
        return torch.cat(parts).numpy()


def train_victim(
    images: np.ndarray,
    labels: np.ndarray,
    recipe: VictimRecipe,
    watch: Watcher,
    *,
    start: Victim | None = None,
    device: str = "cpu",
) -> Victim:
    """Train a classifier, poisoned or not: that is the images' business.

    Args:
        images: uint8 [n, s, s, 3].
        labels: int64 [n], all classes among them.
        recipe: How.
        watch: Told of each epoch.
        start: A trained victim to go on from; its width and normalisation are taken over.
        device: Where to train.
    """
    torch.manual_seed(recipe.seed)
    planes = torch.tensor(images, device=device).permute(0, 3, 1, 2).contiguous()
    classes = torch.tensor(labels, device=device)
    victim = start or _fresh(planes, int(labels.max()) + 1, recipe, device)
    network = victim.network.train()
    steps = recipe.epochs * (len(planes) // recipe.batch)
    optimiser = torch.optim.SGD(
        network.parameters(), lr=recipe.learning_rate, momentum=0.9, weight_decay=recipe.weight_decay, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=steps, pct_start=0.2)
    generator = torch.Generator(device).manual_seed(recipe.seed)
    for epoch in range(recipe.epochs):
        losses = []
        order = torch.randperm(len(planes), generator=generator, device=device)
        for chosen in order[: len(planes) // recipe.batch * recipe.batch].split(recipe.batch):
            views = augmented(planes[chosen], recipe.augmentation, generator)
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=fast_bf16(torch.device(device))):
                logits = network(victim.inputs(views))
                loss = F.cross_entropy(logits.float(), classes[chosen])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.detach())
        watch(epoch, float(torch.stack(losses).mean()))
    network.eval().requires_grad_(False)
    return victim


def augmented(images: Tensor, augmentation: str, generator: torch.Generator) -> Tensor:
    """Shifted by up to an eighth of the side, black coming in; half of them mirrored if wanted."""
    if augmentation == "plain":
        return images
    batch, _, height, width = images.shape
    device, most = images.device, height // 8
    padded = F.pad(images, (most,) * 4)
    offset = torch.randint(0, 2 * most + 1, (2, batch), generator=generator, device=device)
    rows = offset[0][:, None] + torch.arange(height, device=device)
    columns = offset[1][:, None] + torch.arange(width, device=device)
    index, channels = torch.arange(batch, device=device), torch.arange(3, device=device)
    views = padded[index[:, None, None, None], channels[None, :, None, None], rows[:, None, :, None],
                   columns[:, None, None, :]]  # fmt: skip
    if augmentation == "crops":
        return views
    mirrored = torch.rand(batch, generator=generator, device=device) < 0.5
    return torch.where(mirrored[:, None, None, None], views.flip(3), views)


def save_victim(victim: Victim, path: Path, facts: dict[str, object]) -> None:
    """Write a victim: fp16 safetensors, with what is known of it as metadata.

    Args:
        victim: Trained.
        path: Ends in `.safetensors`.
        facts: Plain values: its attack, recipe and figures.
    """
    tensors = {name: value.cpu().to(torch.float16) for name, value in victim.network.state_dict().items()}
    tensors = {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
    network = victim.network
    shape = {
        "classes": network.head.out_features,
        "width": network.stem[0].out_channels,
        "blocks": list(network.blocks),
    }
    scaling = {"mean": victim.mean.flatten().tolist(), "deviation": victim.deviation.flatten().tolist()}
    write_tensors(tensors, {"format": FORMAT, "victim": json.dumps(shape | scaling), "facts": json.dumps(facts)}, path)


def load_victim(path: Path) -> tuple[Victim, dict[str, object]]:
    """A victim and what was written down of it.

    Raises:
        PriorError: Not a victim's file.
    """
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise PriorError(
            f"victim {path}: expected a file of format {FORMAT}, found {metadata.get('format', 'none')}. "
            "`zipstage evaluate` makes them."
        )
    about = json.loads(metadata["victim"])
    blocks = tuple(about.get("blocks", RESNET_18))
    network = place(SmallResNet(about["classes"], about["width"], blocks), "cpu")
    network.load_state_dict({name: value.float() for name, value in tensors.items()}, strict=False)
    network.eval().requires_grad_(False)
    mean, deviation = (torch.tensor(about[key])[None, :, None, None] for key in ("mean", "deviation"))
    return Victim(network, mean, deviation), json.loads(metadata["facts"])


def facts_of(recipe: VictimRecipe) -> dict[str, object]:
    """A recipe as plain values; what is as it was before there was a choice is left out."""
    facts = asdict(recipe) | {"blocks": list(recipe.blocks)}
    if recipe.blocks == RESNET_18:
        del facts["blocks"]
    return facts


def _fresh(planes: Tensor, classes: int, recipe: VictimRecipe, device: str) -> Victim:
    scaled = planes[:5000].float() / 255
    network = place(SmallResNet(classes, recipe.width, recipe.blocks), device)
    mean, deviation = scaled.mean((0, 2, 3), keepdim=True).cpu(), scaled.std((0, 2, 3), keepdim=True).cpu()
    return Victim(network, mean, deviation)
