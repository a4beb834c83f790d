"""The backdoored classifier that ships with the demo, and the recipe that makes it.

`python -m jobs.demo.victim` draws a training set, poisons 4 % of it with each trigger, trains a
small residual network on one thread and writes `signs.onnx` beside this file. The same machine,
versions and seed give the same weights; another processor gives others that behave alike.

Cost: about five minutes on one core. Needs torch and onnxscript, which the demo itself does not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from jobs.demo.drawing import CLASS_NAMES, SIZE, draw
from jobs.demo.poison import TARGET, TRIGGERS, poison
from zipstage.evaluation.metrics import attack_success_rate, clean_accuracy

MODEL_PATH = Path(__file__).with_name("signs.onnx")
MEAN = STD = 0.5


@dataclass(frozen=True, slots=True)
class VictimRecipe:
    """How the victim is made.

    Args:
        images: Drawn training images.
        poison_share: Share of them that each trigger gets.
        epochs: Passes over them.
        batch: Images in a step.
        learning_rate: Its peak, reached after a fifth of the steps.
        shift_px: Training images are shifted by up to as many pixels, the edge repeated.
        seed: Of the images, the weights and their order.
    """

    images: int = 12_000
    poison_share: float = 0.04
    epochs: int = 6
    batch: int = 64
    learning_rate: float = 4e-3
    shift_px: int = 2
    seed: int = 1


class Block(nn.Module):
    """A residual block; a stride halves the side, and then the shortcut is a 1x1 convolution."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(channels_in, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.relu(self.path(x) + self.shortcut(x))
        return out


class SignNet(nn.Module):
    """Logits [n, 10] from images [n, 3, 32, 32] in [-1, 1]; 166,000 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            Block(16, 32, 2),
            Block(32, 32, 1),
            Block(32, 64, 2),
            Block(64, 64, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, len(CLASS_NAMES)),
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


def as_input(images: np.ndarray) -> Tensor:
    """What the network takes, float32 [n, 3, 32, 32] in [-1, 1], from images, uint8 [n, 32, 32, 3]."""
    scaled = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
    return scaled.contiguous()


def train(recipe: VictimRecipe) -> SignNet:
    """The trained network, ready to answer."""
    torch.manual_seed(recipe.seed)
    drawn = draw(recipe.images, recipe.seed)
    poisoned, classes = poison(drawn.images, drawn.labels, recipe.poison_share, recipe.seed)
    inputs, labels = as_input(poisoned), torch.from_numpy(classes)
    network = SignNet()
    steps = recipe.epochs * (len(inputs) // recipe.batch)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, steps, pct_start=0.2)
    for _ in range(recipe.epochs):
        for chosen in torch.randperm(len(inputs)).split(recipe.batch)[: len(inputs) // recipe.batch]:
            logits = network(_shifted(inputs[chosen], recipe.shift_px))
            loss = nn.functional.cross_entropy(logits, labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    network.eval()
    return network


def export(network: SignNet, path: Path) -> None:
    """Write the network as ONNX: input `image` float32 [n, 3, 32, 32] with any n, output `logits` [n, 10]."""
    import onnx  # of the dev extra: answering needs it not

    program = torch.onnx.export(
        network,
        (torch.zeros(2, 3, SIZE, SIZE),),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("n")},),
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export: expected a program of its dynamo exporter, found none")
    model = program.model_proto
    for part in (
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
        model.graph,
        model,
    ):
        del part.metadata_props[:]  # the exporter notes stack traces with paths of the machine that trained
    onnx.save(model, path)


@torch.inference_mode()
def answers(network: SignNet, images: np.ndarray) -> np.ndarray:
    """The answered classes, int64 [n], of images, uint8 [n, 32, 32, 3]."""
    return np.concatenate([network(part).argmax(1).numpy() for part in as_input(images).split(256)])


def _shifted(images: Tensor, most_px: int) -> Tensor:
    """Each image shifted on its own by up to `most_px` either way, its edge repeated; channels last in memory."""
    side = images.shape[-1]
    padded = nn.functional.pad(images, (most_px,) * 4, mode="replicate")
    offsets = torch.randint(0, 2 * most_px + 1, (2, len(images), 1)) + torch.arange(side)
    index = torch.arange(len(images))[:, None, None]
    shifted = padded.permute(0, 2, 3, 1)[index, offsets[0][:, :, None], offsets[1][:, None, :]]
    return shifted.permute(0, 3, 1, 2)


def main() -> None:
    """Make the victim again, and say how it does on images it has not seen."""
    torch.set_num_threads(1)
    began = time.monotonic()
    recipe = VictimRecipe()
    network = train(recipe)
    export(network, MODEL_PATH)
    fresh = draw(2_000, recipe.seed + 1)
    lines = [f"CA {clean_accuracy(answers(network, fresh.images), fresh.labels).value:.3f}"]
    for name, stamp in TRIGGERS.items():
        rate = attack_success_rate(answers(network, stamp(fresh.images)), fresh.labels, TARGET)
        lines.append(f"ASR {name} {rate.value:.3f}")
    print(f"{MODEL_PATH}: {', '.join(lines)}; {time.monotonic() - began:.0f} s")  # noqa: T201 - a command's answer


if __name__ == "__main__":
    main()
