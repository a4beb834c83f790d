"""Archives of `torch.export.save` as classifiers.

Trap: reading such an archive trusts it as much as running a program. It is meant for the user's own
export; a network from elsewhere comes as ONNX or behind an endpoint.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from pipeline.classifiers.tensors import TensorSpec, WireError, datatype_of
from pipeline.errors import ClassifierError


class TorchExportNetwork:
    """One archive, loaded onto the device that it was exported on.

    Outputs are called `output`, or `output-0`, `output-1` and so on, in the order of the export.

    Args:
        path: The file, `.pt2`.

    Raises:
        ClassifierError: No such file, no such archive, or not of one input.
    """

    def __init__(self, path: str) -> None:
        if not Path(path).is_file():
            raise ClassifierError(
                f"classifier {path}: expected an archive of torch.export.save, found no file. Correct classifier.path."
            )
        # torch would try older formats one after the other and log a traceback for each
        if not zipfile.is_zipfile(path):
            raise ClassifierError(f"classifier {path}: expected an archive of torch.export.save, found another file.")
        try:
            program = torch.export.load(path)
        except Exception as error:  # noqa: BLE001 - anything may come out of a foreign or damaged archive
            raise ClassifierError(f"classifier {path}: torch.export can't load it: {_line(error)}") from None
        self._path = path
        self.input, self._device = _input(program, path)
        self.outputs = _outputs(program)
        self._module = program.module()

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """All outputs by name.

        Raises:
            ClassifierError: The network refuses the batch.
        """
        try:
            with torch.inference_mode():
                values = _flat(self._module(torch.from_numpy(batch).to(self._device)))
            return {spec.name: value.cpu().numpy() for spec, value in zip(self.outputs, values, strict=True)}
        except Exception as error:  # noqa: BLE001 - guards of an export raise AssertionError, kernels RuntimeError
            raise ClassifierError(
                f"classifier {self._path}: refuses {batch.dtype} {list(batch.shape)}: {_line(error)}"
            ) from None


def _flat(result: object) -> list[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return [result]
    items = list(result.values()) if isinstance(result, Mapping) else result
    return [item for item in items if isinstance(item, torch.Tensor)] if isinstance(items, (list, tuple)) else []


def _input(program: torch.export.ExportedProgram, path: str) -> tuple[TensorSpec, torch.device]:
    names = program.graph_signature.user_inputs
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    tensors = [values.get(str(name)) for name in names]
    if len(tensors) != 1 or not isinstance(tensors[0], torch.Tensor):
        raise ClassifierError(f"classifier {path}: expected one input, the images, found {len(tensors)}.")
    return _spec(str(names[0]), tensors[0]), tensors[0].device


def _outputs(program: torch.export.ExportedProgram) -> tuple[TensorSpec, ...]:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    found = [values.get(str(name)) for name in program.graph_signature.user_outputs]
    tensors = [value for value in found if isinstance(value, torch.Tensor)]
    names = ["output"] if len(tensors) == 1 else [f"output-{index}" for index in range(len(tensors))]
    return tuple(_spec(name, tensor) for name, tensor in zip(names, tensors, strict=True))


def _spec(name: str, tensor: torch.Tensor) -> TensorSpec:
    # a symbolic length is no int: it is open
    shape = tuple(side if isinstance(side, int) else -1 for side in tensor.shape)
    try:
        datatype = datatype_of(torch.empty(0, dtype=tensor.dtype).numpy().dtype)
    except (TypeError, WireError):  # numpy has no bfloat16, the protocol no complex numbers
        datatype = str(tensor.dtype)
    return TensorSpec(name, datatype, shape)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
