"""The built-in restorer R: a plain residual U-Net that is told how its input was damaged.

No normalisation and no attention: its answer depends on the image alone, a convolution costs
what the hardware's best kernel costs, and any size that is a multiple of 4 goes in. Cost at the
shipped width (32): 0.78 GFLOP for a call on a 32x32 image, growing with the number of pixels.

Axes: b images, h and w pixels.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)

SIGMA_DATA = 0.5  # standard deviation of the images after `purifiers.restore` set their contrast
SIGMA_MIN = 2e-3


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))); the second convolution starts at zero, so the block does too."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(_bias(self.conv2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(torch.relu(self.conv1(torch.relu(x))))
        return out


class RestorationUNet(nn.Module):
    """Predicts x0 from a damaged image, the damage's strength and what is hidden.

    The output is preconditioned as in EDM (Karras et al. 2022, table 1): the network sees an
    input of unit variance and gives what is left to say, `c_skip * x + c_out * F(c_in * x)`.
    The noise level is a map: a hidden pixel carries no signal, so there c_skip is 0.

    Args:
        width: Channels at full resolution; twice and four times as many at half and quarter.
        depths: Residual blocks at full, half and quarter resolution, on the way down and again up.
    """

    def __init__(self, width: int = 32, depths: tuple[int, int, int] = (2, 3, 5)) -> None:
        super().__init__()
        w0, w1, w2 = width, 2 * width, 4 * width
        self.width, self.depths = width, tuple(depths)
        self.stem = nn.Conv2d(6, w0, 3, padding=1)
        self.down0 = _blocks(w0, depths[0])
        self.shrink0 = nn.Conv2d(w0, w1, 2, stride=2)
        self.down1 = _blocks(w1, depths[1])
        self.shrink1 = nn.Conv2d(w1, w2, 2, stride=2)
        self.middle = _blocks(w2, 2 * depths[2])
        self.grow1 = nn.Sequential(nn.Conv2d(w2, 4 * w1, 1), nn.PixelShuffle(2))
        self.up1 = _blocks(w1, depths[1])
        self.grow0 = nn.Sequential(nn.Conv2d(w1, 4 * w0, 1), nn.PixelShuffle(2))
        self.up0 = _blocks(w0, depths[0])
        self.head = nn.Conv2d(w0, 3, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(_bias(self.head))

    def forward(self, damaged: Tensor, sigma_white: Tensor, sigma_smooth: Tensor, mask: Tensor) -> Tensor:
        """Restore.

        Args:
            damaged: Images [b, 3, h, w], about [-1, 1] before the noise; zero where hidden.
            sigma_white: Standard deviation of the white noise they carry, [b].
            sigma_smooth: Standard deviation of the smooth noise they carry, [b].
            mask: 1 where a pixel is visible, 0 where hidden, [b, 1, h, w].

        Returns:
            x0, [b, 3, h, w], not clipped.
        """
        white = sigma_white.clamp_min(SIGMA_MIN)[:, None, None, None]
        smooth = sigma_smooth[:, None, None, None]
        variance = white**2 + smooth**2
        total = variance + SIGMA_DATA**2
        c_skip = mask * (SIGMA_DATA**2 / total)
        c_out = mask * (SIGMA_DATA * (variance / total).sqrt()) + (1 - mask) * SIGMA_DATA
        told = torch.cat([mask, white.log() / 4 * torch.ones_like(mask), smooth * torch.ones_like(mask)], 1)
        features = torch.cat([damaged * mask * total.rsqrt(), told], 1)
        return c_skip * damaged + c_out * self._unet(features)

    def _unet(self, features: Tensor) -> Tensor:
        full = self.down0(self.stem(features))
        half = self.down1(self.shrink0(full))
        quarter = self.middle(self.shrink1(half))
        half = self.up1(half + self.grow1(quarter))
        full = self.up0(full + self.grow0(half))
        out: Tensor = self.head(torch.relu(full))
        return out


def place(network: Network, device: str | torch.device) -> Network:
    """The network on a device, its weights channels_last: the order in which convolutions are fastest."""
    placed: Network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own types lack it
    return placed


def fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is the faster type there; without such instructions it is several times slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("amx_bf16_tile"))


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None  # for the type checker: every convolution here has one
    return conv.bias
