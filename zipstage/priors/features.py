"""A small recognition network whose features serve as the restorer's second loss.

What a restorer should keep is what recognition needs. The network learns classes that no
evaluation of ours asks for, so that it favours no victim's (Transferable RA, TPAMI: gains of a
recognition loss carry over to networks never seen in training).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

Blocks = tuple[int, int, int, int]
RESNET_18: Blocks = (2, 2, 2, 2)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation and a shortcut (He et al. 2016)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and channels_in == channels
            else nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(out + self.shortcut(x))


class SmallResNet(nn.Module):
    """A ResNet for 32x32 images: four stages of blocks, then a linear layer.

    Args:
        num_classes: Length of the answer.
        width: Channels of the first stage; each following one has twice as many at half the size.
        blocks: In each stage; with width 64 the default makes a ResNet-18, (3, 4, 6, 3) a ResNet-34.
    """

    def __init__(self, num_classes: int, width: int = 32, blocks: Blocks = RESNET_18) -> None:
        super().__init__()
        self.blocks = blocks
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        widths = [width * 2**i for i in range(4)]
        self.stages = nn.ModuleList(
            nn.Sequential(
                BasicBlock(widths[max(i - 1, 0)], channels, 1 if i == 0 else 2),
                *(BasicBlock(channels, channels, 1) for _ in range(blocks[i] - 1)),
            )
            for i, channels in enumerate(widths)
        )
        self.head = nn.Linear(widths[-1], num_classes)

    def stage_features(self, x: Tensor) -> list[Tensor]:
        """The four stages' outputs for images [b, 3, h, w] of mean 0 and deviation .5."""
        x = self.stem(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stage_features(x)[-1].mean((2, 3)))
        return logits


def feature_distance(network: SmallResNet, restored: Tensor, clean: Tensor) -> Tensor:
    """Relative squared distance of the features, averaged over images and stages: a scalar."""
    with torch.no_grad():
        wanted = network.stage_features(clean)
    distances = [
        ((got.float() - want.float()).square().sum((1, 2, 3)) / _energy(want)).mean()
        for got, want in zip(network.stage_features(restored), wanted, strict=True)
    ]
    return torch.stack(distances).mean()


def _energy(features: Tensor) -> Tensor:
    return features.float().square().sum((1, 2, 3)).clamp_min(1e-6)
