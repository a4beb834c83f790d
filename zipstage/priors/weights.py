"""Weights on disk: safetensors only, written whole or not at all, named by what is in them.

For all priors. Trap: a digest of the file would change with the order and the metadata that the
writer chose; this one is of names, types, shapes and values alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from zipstage.errors import PriorError


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file by name, and its metadata.

    Raises:
        PriorError: No such file, or not safetensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 - no dict
    except (OSError, SafetensorError) as error:
        raise PriorError(f"{path}: expected a safetensors file, found: {error}.") from None


def write_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], path: Path) -> None:
    """Write a safetensors file that appears whole or not at all."""
    pending = path.with_name(f"{path.name}.{os.getpid()}.pending")
    # safetensors' own writer of files makes them unreadable for other users
    pending.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}, dict(metadata)))
    pending.replace(path)


def digest_of(tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> str:
    """SHA-256 in hex over tensors, in the order of their names, and over what decides how they are read.

    Args:
        tensors: The weights.
        facts: Plain values: configuration, kind of prediction.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
