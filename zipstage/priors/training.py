"""Training of the built-in restorer: a loop that resumes, facts about its progress; `recipe` says of what.

Two steps: a small recognition network (`train_features`), then the restorer, whose loss is L1 plus
the distance of that network's features (`train_restorer`). Both write checkpoints and go on from
the last one. Arrays in, checkpoint files out; who opens shards is `jobs.prior`.

Cost at the shipped recipe: about 2.3 GFLOP an image and step for the restorer, 40 % more with the
feature loss. One core with bf16 instructions sees some 60 images/s.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zipstage.errors import PriorError
from zipstage.priors.damage import (
    FOCUSED,
    WIDE,
    block_damage,
    random_damage,
    random_patches,
    random_views,
    set_contrast,
)
from zipstage.priors.features import SmallResNet, feature_distance
from zipstage.priors.graphics import with_graphics
from zipstage.priors.network import RestorationUNet, fast_bf16, place
from zipstage.priors.recipe import Recipe
from zipstage.priors.spotter import PatchSpotter, spotting_loss

BENCHMARK_SIGMAS = (0.05, 0.1, 0.2, 0.4, 0.7)


@dataclass(frozen=True, slots=True)
class Progress:
    """One fact about a running training, about every ten seconds."""

    step: str
    images: int
    of_images: int
    loss: float
    images_per_s: float

    @property
    def seconds_left(self) -> float:
        return (self.of_images - self.images) / max(self.images_per_s, 1e-9)


Watcher = Callable[[Progress], None]


def train_features(
    images: Tensor, labels: Tensor, recipe: Recipe, checkpoint: Path, watch: Watcher, device: str = "cpu"
) -> SmallResNet:
    """Train the recognition network, or finish it from its checkpoint.

    Args:
        images: uint8 [n, 3, s, s].
        labels: int64 [n], 0 to the number of classes less one.
        recipe: `feature_images`, `batch` and `seed` count here.
        checkpoint: File that is written as the training goes.
        watch: Called with the progress.
        device: Where to train.
    """
    torch.manual_seed(recipe.seed)
    network = place(SmallResNet(int(labels.max()) + 1), device)
    images, labels = images.to(device), labels.to(device)

    def loss_of_a_batch(generator: torch.Generator, _seen: int) -> Tensor:
        views, index = random_views(images, recipe.batch, 32, generator)
        logits: Tensor = network(set_contrast(views)[0])
        return nn.functional.cross_entropy(logits.float(), labels[index], label_smoothing=0.1)

    loop = _Loop("features", network, recipe, recipe.feature_images, checkpoint, watch, device)
    loop.run(loss_of_a_batch, learning_rate=2e-3)
    return network.eval().requires_grad_(False)


def train_restorer(
    image_sets: list[Tensor],
    features: SmallResNet | None,
    recipe: Recipe,
    checkpoint: Path,
    watch: Watcher,
    device: str = "cpu",
    start: RestorationUNet | None = None,
) -> RestorationUNet:
    """Train the restorer, or finish it from its checkpoint; gives the averaged weights.

    Args:
        image_sets: uint8 [n, 3, s, s] each, one for each size of image; a step draws from one.
        features: Recognition network of the second loss; none trains with L1 alone.
        recipe: All that shapes the result.
        checkpoint: File that is written as the training goes.
        watch: Called with the progress.
        device: Where to train.
        start: A trained restorer to go on from, of the same width and of as many blocks or fewer.

    Raises:
        PriorError: The recipe's network doesn't hold `start`.
    """
    torch.manual_seed(recipe.seed)
    network = RestorationUNet(recipe.width, recipe.depths)
    if start is not None:
        grow(network, start)
    network = place(network, device)
    sets = [s.to(device) for s in image_sets]
    shares = torch.tensor([float(len(s)) * s.shape[-1] for s in sets])

    def loss_of_a_batch(generator: torch.Generator, seen: int) -> Tensor:
        chance = torch.rand(2, generator=generator, device=generator.device).tolist()
        size, batch = (64, recipe.batch // 4) if chance[0] < recipe.large_views else (32, recipe.batch)
        chosen = int((shares.cumsum(0) / shares.sum() < chance[1]).sum())
        images = sets[min(chosen, len(sets) - 1)]
        views, _ = random_views(images, batch, size, generator, soft_share=recipe.soft_views)
        if recipe.blocks:
            sample = block_damage(views, recipe.blocks)
        else:
            strengths = FOCUSED if recipe.focused else WIDE
            sample = random_damage(views, generator, patches=seen >= recipe.patch_start, strengths=strengths)
        inputs = sample.damaged.contiguous(memory_format=torch.channels_last)
        restored: Tensor = network(inputs, sample.sigma_white, sample.sigma_smooth, sample.mask)
        loss = (restored - sample.clean).abs().mean()
        if features is not None and recipe.feature_weight and seen >= recipe.feature_start:
            loss = loss + recipe.feature_weight * feature_distance(features, restored, sample.clean)
        return loss

    loop = _Loop("restorer", network, recipe, recipe.images, checkpoint, watch, device)
    loop.run(loss_of_a_batch, learning_rate=recipe.learning_rate)
    network.load_state_dict(loop.averaged)
    return network.eval()


def grow(network: RestorationUNet, start: RestorationUNet) -> None:
    """Give a network the weights of a smaller one; it then gives what that one gave.

    Residual blocks start at zero, so those that `start` lacks change nothing until they are trained.

    Args:
        network: To be filled.
        start: Of the same width, and of as many blocks or fewer at each resolution.

    Raises:
        PriorError: Another width, or more blocks.
    """
    fits = start.width == network.width and all(a <= b for a, b in zip(start.depths, network.depths, strict=True))
    if not fits:
        raise PriorError(
            f"restorer to start from: expected width {network.width} and at most {network.depths} blocks, found "
            f"width {start.width} and {start.depths}. Set recipe.width and recipe.depths to hold it."
        )
    network.load_state_dict(start.state_dict(), strict=False)


def train_spotter(
    images: Tensor,
    recipe: Recipe,
    checkpoint: Path,
    watch: Watcher,
    device: str = "cpu",
    start: PatchSpotter | None = None,
) -> PatchSpotter:
    """Train the spotter, or finish it from its checkpoint; gives the averaged weights.

    Args:
        images: uint8 [n, 3, s, s].
        recipe: `spotter_images`, `spotter_graphics`, `batch`, `ema` and `seed` count here.
        checkpoint: File that is written as the training goes.
        watch: Called with the progress.
        device: Where to train.
        start: A trained spotter to go on from.
    """
    torch.manual_seed(recipe.seed)
    network = PatchSpotter()
    if start is not None:
        network.load_state_dict(start.state_dict())
    network = place(network, device)
    images = images.to(device)

    def loss_of_a_batch(generator: torch.Generator, _seen: int) -> Tensor:
        views, _ = random_views(images, recipe.batch, 32, generator)
        if recipe.spotter_graphics:
            views = with_graphics(views, recipe.spotter_graphics, generator)
        patched = random_patches(views, generator)
        pasted = (patched != views).any(1, keepdim=True).float()
        y = set_contrast(patched)[0]
        sigma = 0.04 * torch.rand((len(y), 1, 1, 1), generator=generator, device=y.device)
        y = y + sigma * torch.randn(y.shape, generator=generator, device=y.device)
        return spotting_loss(network(y.contiguous(memory_format=torch.channels_last)), pasted)

    loop = _Loop("spotter", network, recipe, recipe.spotter_images, checkpoint, watch, device)
    loop.run(loss_of_a_batch, learning_rate=2e-3)
    network.load_state_dict(loop.averaged)
    return network.eval().requires_grad_(False)


class _Loop:
    """AdamW under a cosine, averaged weights, and a checkpoint from which all of it goes on."""

    def __init__(
        self,
        name: str,
        network: nn.Module,
        recipe: Recipe,
        of_images: int,
        checkpoint: Path,
        watch: Watcher,
        device: str,
    ) -> None:
        self.name, self.network, self.recipe, self.of_images = name, network, recipe, of_images
        self.checkpoint, self.watch = checkpoint, watch
        self.optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-3)
        self.averaged = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self.generator = torch.Generator(device).manual_seed(recipe.seed)
        self.device, self.seen, self.steps, self.seconds = torch.device(device), 0, 0, 0.0
        if checkpoint.exists():
            self._load()

    def run(self, loss_of_a_batch: Callable[[torch.Generator, int], Tensor], learning_rate: float) -> None:
        self.network.train()
        told, losses = time.monotonic(), []
        saved = began = told
        told_seen, seconds_before = self.seen, self.seconds
        while self.seen < self.of_images:
            for group in self.optimiser.param_groups:
                group["lr"] = learning_rate * self._rate()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=fast_bf16(self.device)):
                loss = loss_of_a_batch(self.generator, self.seen)
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)
            self._average()
            self.seen += self.recipe.batch
            self.steps += 1
            losses.append(loss.detach())
            now = time.monotonic()
            self.seconds = seconds_before + now - began
            if now - told > 10 or self.seen >= self.of_images:
                mean = float(torch.stack(losses).mean())
                rate = (self.seen - told_seen) / max(now - told, 1e-9)
                self.watch(Progress(self.name, self.seen, self.of_images, mean, rate))
                told, told_seen, losses = now, self.seen, []
            if now - saved > self.recipe.checkpoint_s or self.seen >= self.of_images:
                self._save()
                saved = now

    def _rate(self) -> float:
        warm = min(1.0, (self.steps + 1) / 500)
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, self.seen / self.of_images)))

    @torch.no_grad()
    def _average(self) -> None:
        # A young average forgets its start faster: the usual correction for few steps.
        decay = min(self.recipe.ema, (1 + self.steps) / (10 + self.steps))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.averaged[name].lerp_(value, 1 - decay)
            else:
                self.averaged[name].copy_(value)

    def _save(self) -> None:
        state: dict[str, Any] = {  # torch's own container of state dictionaries
            "network": self.network.state_dict(),
            "averaged": self.averaged,
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "seen": self.seen,
            "steps": self.steps,
            "seconds": self.seconds,
        }
        pending = self.checkpoint.with_suffix(".pending")
        torch.save(state, pending)
        pending.replace(self.checkpoint)

    def _load(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.averaged = state["averaged"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"].cpu())
        self.seen, self.steps, self.seconds = state["seen"], state["steps"], state["seconds"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint says about a training.

    Args:
        averaged: The weights that ship, by name.
        seen: Images seen, counted with repeats.
        seconds: Of training so far.
    """

    averaged: dict[str, Tensor]
    seen: int
    seconds: float


def read_checkpoint(path: Path) -> Checkpoint:
    """A training's checkpoint, written by `train_features` or `train_restorer`.

    Raises:
        PriorError: No such file.
    """
    if not path.is_file():
        raise PriorError(f"checkpoint {path}: no such file. Expected one that `zipstage prior train` writes.")
    state = torch.load(path, map_location="cpu", weights_only=True)
    return Checkpoint(state["averaged"], state["seen"], state["seconds"])


@torch.inference_mode()
def losses_by_noise(network: RestorationUNet, images: Tensor, seed: int = 0) -> dict[str, float]:
    """Mean absolute error at some noise levels, white noise alone, on images of set contrast.

    Args:
        network: The restorer.
        images: Held-out images, uint8 [n, 3, s, s].
        seed: Of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    clean = set_contrast(images.float() / 127.5 - 1)[0]
    losses = {}
    for sigma in BENCHMARK_SIGMAS:
        noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
        errors = [
            (_without_white(network, noisy[i : i + 50], sigma) - clean[i : i + 50]).abs().mean((1, 2, 3))
            for i in range(0, len(clean), 50)
        ]
        losses[str(sigma)] = round(float(torch.cat(errors).mean()), 5)
    return losses


def _without_white(network: RestorationUNet, noisy: Tensor, sigma: float) -> Tensor:
    ones, mask = torch.ones(len(noisy)), torch.ones((len(noisy), 1, *noisy.shape[2:]))
    restored: Tensor = network(noisy, sigma * ones, 0 * ones, mask)
    return restored
