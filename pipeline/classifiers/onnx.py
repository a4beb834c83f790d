"""ONNX files as classifiers, by onnxruntime: on the GPU where its build has one, else on the CPU.

One thread a run by default: several batches run at once already, and scores then don't depend on how
many cores the machine has.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.classifiers.tensors import DTYPES, TensorSpec
from pipeline.errors import ClassifierError

_DATATYPES = {
    "tensor(float)": "FP32",
    "tensor(float16)": "FP16",
    "tensor(double)": "FP64",
    "tensor(bool)": "BOOL",
} | {f"tensor({name.lower()})": name for name in DTYPES if "INT" in name}


class OnnxNetwork:
    """One ONNX file, loaded.

    Args:
        path: The file.
        threads: CPU threads of one run.

    Raises:
        ClassifierError: No onnxruntime, no such file, not ONNX, or not of one input.
    """

    def __init__(self, path: str, threads: int = 1) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise ClassifierError(f"classifier {path}: onnxruntime is missing: pip install 'zipstage[onnx]'") from None
        if not Path(path).is_file():
            raise ClassifierError(
                f"classifier {path}: expected an ONNX file, found none there. Correct classifier.path."
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        options.log_severity_level = 4  # its warnings go to stderr past all logging
        usable = onnxruntime.get_available_providers()
        providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in usable]
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers)
        except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no base below Exception
            raise ClassifierError(f"classifier {path}: not an ONNX file that can be run: {_line(error)}") from None
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(node.name for node in inputs)
            raise ClassifierError(f"classifier {path}: expected one input, the images, found {len(inputs)}: {names}.")
        self._path = path
        self.input = _spec(inputs[0])
        self.outputs = tuple(_spec(node) for node in self._session.get_outputs())

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """All outputs by name.

        Raises:
            ClassifierError: The network refuses the batch.
        """
        try:
            values = self._session.run(None, {self.input.name: batch})
        except Exception as error:  # noqa: BLE001 - as above
            raise ClassifierError(
                f"classifier {self._path}: refuses {batch.dtype} {list(batch.shape)}: {_line(error)}"
            ) from None
        return {spec.name: np.asarray(value) for spec, value in zip(self.outputs, values, strict=True)}


def _spec(node: object) -> TensorSpec:
    # a named or unknown length is open; onnxruntime gives names as text and unknown ones as None
    name, kind, shape = (getattr(node, attribute) for attribute in ("name", "type", "shape"))
    sides = tuple(side if isinstance(side, int) and side > 0 else -1 for side in shape)
    return TensorSpec(name, _DATATYPES.get(kind, kind), sides or None)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
