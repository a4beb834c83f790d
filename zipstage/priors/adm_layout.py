"""What an ADM network looks like: its layout read off a checkpoint's shapes, and its names in diffusers.

For `adm`. diffusers' UNet2DModel represents the ADM network (Dhariwal & Nichol 2021) exactly; what
differs is names, and how the rows of q, k and v lie. Trap: each wrong option gives a network that
runs and answers nonsense.

Legend: L levels, n residual blocks a level, l a level going down, u one going up, C channels, d
channels of an attention head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from zipstage.errors import PriorError

Shapes = Mapping[str, tuple[int, ...]]

_RES = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ATTENTION = {"group_norm": "norm", "to_out.0": "proj_out", "to_q": "qkv", "to_k": "qkv", "to_v": "qkv"}
QKV = ("to_q", "to_k", "to_v")


@dataclass(frozen=True, slots=True)
class AdmOptions:
    """What an ADM checkpoint's shapes don't tell; the defaults are the released 256x256 models'.

    Args:
        image_size: Pixels a side of the images it was trained on.
        head_channels: Channels of an attention head (`num_head_channels`).
        new_attention_order: Whether q, k and v lie one after the other instead of head by head
            (`use_new_attention_order`).
    """

    image_size: int = 256
    head_channels: int = 64
    new_attention_order: bool = False


@dataclass(frozen=True, slots=True)
class AdmLayout:
    """The shape of an ADM network, as its tensors show it.

    Args:
        channels: Of each level, from full resolution down.
        blocks: Residual blocks of a level on the way down (n); one more on the way up.
        attention: Whether each level attends.
        in_channels: Of the image.
        out_channels: 3, or 6 with a learned variance.
    """

    channels: tuple[int, ...]
    blocks: int
    attention: tuple[bool, ...]
    in_channels: int
    out_channels: int


def infer_layout(shapes: Shapes, where: str) -> AdmLayout:
    """What the shapes say about the network.

    Raises:
        PriorError: Not an ADM network, or one of a kind that isn't supported.
    """
    _refuse_other_kinds(shapes, where)
    inputs = _num_blocks(shapes, "input_blocks")
    # An upsampler is a second or third residual block in one place: the first stands at the first level's end.
    blocks = next(
        (i for i in range(inputs) for j in (1, 2) if f"output_blocks.{i}.{j}.in_layers.0.weight" in shapes), inputs - 1
    )
    firsts = [1 + level * (blocks + 1) for level in range(inputs // (blocks + 1))]
    try:
        return AdmLayout(
            channels=tuple(shapes[f"input_blocks.{i}.0.out_layers.3.weight"][0] for i in firsts),
            blocks=blocks,
            attention=tuple(f"input_blocks.{i}.1.qkv.weight" in shapes for i in firsts),
            in_channels=shapes["input_blocks.0.0.weight"][1],
            out_channels=shapes["out.2.weight"][0],
        )
    except KeyError as missing:
        raise PriorError(f"{where}: expected an ADM checkpoint, found no tensor {missing}.") from None


def unet_arguments(layout: AdmLayout, options: AdmOptions, where: str) -> dict[str, Any]:
    """The arguments of diffusers' UNet2DModel that make it the ADM network.

    Raises:
        PriorError: A number of channels isn't a multiple of the head's.
    """
    attending = [c for c, attends in zip(layout.channels, layout.attention, strict=True) if attends]
    for channels in {*attending, layout.channels[-1]}:
        if channels % options.head_channels:
            raise PriorError(
                f"{where}: an attention of {channels} channels can't have heads of {options.head_channels}. "
                f"Set head_channels to the checkpoint's `num_head_channels`."
            )
    return {
        "sample_size": options.image_size,
        "in_channels": layout.in_channels,
        "out_channels": layout.out_channels,
        "block_out_channels": layout.channels,
        "layers_per_block": layout.blocks,
        "down_block_types": tuple("AttnDownBlock2D" if a else "ResnetDownsampleBlock2D" for a in layout.attention),
        "up_block_types": tuple("AttnUpBlock2D" if a else "ResnetUpsampleBlock2D" for a in reversed(layout.attention)),
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift",
        "attention_head_dim": options.head_channels,
        "norm_num_groups": 32,
        "attn_norm_num_groups": 32,  # without it diffusers leaves the middle attention without its norm
        "norm_eps": 1e-5,
        "time_embedding_type": "positional",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
    }


def map_names(layout: AdmLayout, names: list[str]) -> dict[str, str]:
    """The ADM tensor that each tensor of UNet2DModel is made of: 630 names, 566 sources in the full model."""
    modules = dict(_modules(layout))
    sources = {}
    for name in names:
        module, _, kind = name.rpartition(".")
        sources[name] = f"{modules[module]}.{kind}"
    return sources


def split_qkv(qkv: Tensor, part: int, options: AdmOptions) -> Tensor:
    """The rows of q, k or v (part 0, 1, 2) out of ADM's 3C rows.

    In the legacy order head h owns 3d rows: d of q, d of k, d of v. In the new order C rows of q
    come first, then C of k, then C of v.
    """
    if options.new_attention_order:
        in_order: Tensor = qkv.chunk(3)[part]
        return in_order
    by_head: Tensor = qkv.unflatten(0, (-1, 3, options.head_channels))
    return by_head[:, part].flatten(0, 1)


def _modules(layout: AdmLayout) -> Iterator[tuple[str, str]]:
    """Pairs of a UNet2DModel module that holds tensors, and its ADM module."""
    yield from {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }.items()
    for inner, prefix, adm in _blocks(layout):
        for ours, theirs in inner.items():
            yield f"{prefix}.{ours}", f"{adm}.{theirs}"


def _blocks(layout: AdmLayout) -> Iterator[tuple[dict[str, str], str, str]]:
    levels, n = len(layout.channels), layout.blocks
    for level in range(levels):
        for r in range(n):
            adm = f"input_blocks.{1 + level * (n + 1) + r}"
            yield _RES, f"down_blocks.{level}.resnets.{r}", f"{adm}.0"
            yield _ATTENTION, f"down_blocks.{level}.attentions.{r}", f"{adm}.1"
        yield _RES, f"down_blocks.{level}.downsamplers.0", f"input_blocks.{(level + 1) * (n + 1)}.0"
    yield _RES, "mid_block.resnets.0", "middle_block.0"
    yield _ATTENTION, "mid_block.attentions.0", "middle_block.1"
    yield _RES, "mid_block.resnets.1", "middle_block.2"
    for u, attends in enumerate(reversed(layout.attention)):
        for r in range(n + 1):
            adm = f"output_blocks.{u * (n + 1) + r}"
            yield _RES, f"up_blocks.{u}.resnets.{r}", f"{adm}.0"
            yield _ATTENTION, f"up_blocks.{u}.attentions.{r}", f"{adm}.1"
        yield _RES, f"up_blocks.{u}.upsamplers.0", f"output_blocks.{u * (n + 1) + n}.{2 if attends else 1}"


def _refuse_other_kinds(shapes: Shapes, where: str) -> None:
    if "input_blocks.0.0.weight" not in shapes:
        raise PriorError(
            f"{where}: expected an ADM checkpoint with tensors such as input_blocks.0.0.weight, "
            f"found {some(sorted(shapes))}."
        )
    if "label_emb.weight" in shapes:
        raise PriorError(
            f"{where}: expected an unconditional ADM checkpoint, found a class-conditional one (label_emb)."
        )
    if any(name.endswith((".op.weight", ".conv.weight")) for name in shapes):
        raise PriorError(f"{where}: expected an ADM network that resizes in residual blocks (`resblock_updown`).")
    scale_shift = shapes.get("input_blocks.1.0.emb_layers.1.weight")
    channels = shapes.get("input_blocks.1.0.out_layers.3.weight")
    if scale_shift and channels and scale_shift[0] != 2 * channels[0]:
        raise PriorError(f"{where}: expected an ADM network with `use_scale_shift_norm`, found one without.")


def _num_blocks(shapes: Shapes, prefix: str) -> int:
    return 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith(f"{prefix}."))


def some(names: list[str]) -> str:
    """The first of them, for a message."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "none"
