"""Tensors as the Open Inference Protocol V2 writes them, in JSON and as binary data.

For the client and for the server alike. Binary tensors follow the JSON part of a body, which ends at
the byte that the header `Inference-Header-Content-Length` names; sizes come from the other side, so
each is checked before a byte is read. FP16 travels as binary data only: JSON has no such number.
Bytes that are no text travel in JSON as base64, and their `content_type` says so, as MLServer reads it.
"""

from __future__ import annotations

import base64
import json
import math
import re
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

HEADER_LENGTH = "Inference-Header-Content-Length"

DTYPES = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype("O"),
}
"""Element types by the protocol's names; BYTES is an object array of `bytes`."""

MAX_DIMENSIONS = 16
BASE64 = {"content_type": "base64"}

_DATATYPES = {dtype: name for name, dtype in DTYPES.items()}
_JSON_TYPES: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "O": {str}, "f": {int, float}}


class WireError(ValueError):
    """A body that breaks the protocol; the message says where."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a model says of one of its tensors.

    Args:
        name: As the model calls it.
        datatype: The protocol's name, such as FP32; None where the model doesn't say.
        shape: Lengths with the batch first, -1 where any will do; None where the model doesn't say.
    """

    name: str
    datatype: str | None
    shape: tuple[int, ...] | None

    def __str__(self) -> str:
        shape = "of unknown shape" if self.shape is None else str(list(self.shape))
        return f"{self.name!r} {self.datatype or 'of unknown type'} {shape}"


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's name of an element type.

    Raises:
        WireError: The protocol has none.
    """
    name = _DATATYPES.get(dtype.newbyteorder("<") if dtype.kind != "O" else dtype)
    if name is None:
        raise WireError(f"expected an element type of {', '.join(DTYPES)}, found {dtype}")
    return name


def pack(
    fields: Mapping[str, Any],
    kind: Literal["inputs", "outputs"],
    tensors: Mapping[str, np.ndarray],
    binary: Collection[str],
) -> tuple[bytes, dict[str, str]]:
    """A request's or a response's body, and the HTTP headers that belong to it.

    Args:
        fields: What stands in the JSON object beside the tensors.
        kind: Under which name the tensors stand.
        tensors: Arrays by name; BYTES as object arrays of `bytes`.
        binary: Names of those that travel as binary data, the others as JSON.

    Raises:
        WireError: An array of an element type that the protocol hasn't.
    """
    described, blobs = [], []
    for name, array in tensors.items():
        item: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": datatype_of(array.dtype)}
        if name in binary:
            blob = _to_binary(array)
            blobs.append(blob)
            item["parameters"] = {"binary_data_size": len(blob)}
        else:
            item |= _to_json(array)
        described.append(item)
    text = json.dumps({**fields, kind: described}, separators=(",", ":")).encode()
    if not blobs:
        return text, {"Content-Type": "application/json"}
    return b"".join([text, *blobs]), {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(text))}


def unpack(
    body: bytes, header_length: str | None, kind: Literal["inputs", "outputs"]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The JSON object of a body, and its tensors by name in the order in which they stand.

    Args:
        body: All of it.
        header_length: The value of `Inference-Header-Content-Length`, None where there was none.
        kind: Under which name the tensors stand.

    Raises:
        WireError: The body breaks the protocol.
    """
    text_bytes = _header_length(header_length, len(body))
    fields = read_object(body[:text_bytes])
    items = fields.get(kind)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise WireError(f"expected a list of tensors {kind!r}, found {_short(items)}")
    tensors, at = {}, text_bytes
    for item in items:
        name, dtype, shape = _described(item)
        parameters = item.get("parameters")
        size_bytes = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if size_bytes is None:
            array = _from_json(name, item.get("data"), dtype, shape)
            tensors[name] = _from_base64(name, array) if _is_base64(parameters) and dtype.kind == "O" else array
            continue
        if type(size_bytes) is not int or not 0 <= size_bytes <= len(body) - at:
            raise WireError(f"tensor {name!r}: expected {size_bytes} bytes of binary data, found {len(body) - at}")
        tensors[name] = _from_binary(name, body[at : at + size_bytes], dtype, shape)
        at += size_bytes
    if at != len(body):
        raise WireError(f"expected the body to end with its last tensor at byte {at}, found {len(body)} bytes")
    return fields, tensors


def read_object(text: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        WireError: Something else.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise WireError(f"expected a JSON object, found {_short(text.decode('utf-8', 'replace'))}") from None
    if not isinstance(fields, dict):
        raise WireError(f"expected a JSON object, found {_short(fields)}")
    return fields


def read_spec(item: Any) -> TensorSpec:  # noqa: ANN401 - what a server sent
    """One tensor of a model's metadata.

    Raises:
        WireError: It has no name, or a shape that is none.
    """
    if not isinstance(item, dict) or not _is_name(item.get("name")):
        raise WireError(f"expected a tensor with a name, found {_short(item)}")
    shape, datatype = item.get("shape"), item.get("datatype")
    if datatype and not _is_name(datatype):
        raise WireError(f"tensor {item['name']!r}: expected a datatype, found {_short(datatype)}")
    if shape is not None and not (isinstance(shape, list) and all(type(side) is int for side in shape)):
        raise WireError(f"tensor {item['name']!r}: expected a shape of whole numbers, found {_short(shape)}")
    return TensorSpec(item["name"], datatype or None, tuple(shape) if shape else None)


def _described(item: dict[str, Any]) -> tuple[str, np.dtype[Any], tuple[int, ...]]:
    name, datatype, shape = item.get("name"), item.get("datatype"), item.get("shape")
    if not isinstance(name, str) or not _is_name(name):
        raise WireError(f"expected a tensor with a name, found {_short(name)}")
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise WireError(f"tensor {name!r}: expected a datatype of {', '.join(DTYPES)}, found {_short(datatype)}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(map(_is_length, shape)):
        raise WireError(f"tensor {name!r}: expected a shape of whole numbers, found {_short(shape)}")
    return name, DTYPES[datatype], tuple(shape)


def _is_length(found: Any) -> bool:  # noqa: ANN401 - whatever came
    return type(found) is int and 0 <= found < 2**31


def _is_name(found: Any) -> bool:  # noqa: ANN401 - whatever came
    return isinstance(found, str) and 0 < len(found) <= 200 and found.isprintable()


def _header_length(value: str | None, body_bytes: int) -> int:
    if value is None:
        return body_bytes
    if not re.fullmatch(r"[0-9]{1,18}", value) or int(value) > body_bytes:
        raise WireError(f"expected {HEADER_LENGTH} of 0 to {body_bytes}, the body's length, found {_short(value)}")
    return int(value)


def _to_binary(array: np.ndarray) -> bytes:
    if array.dtype.kind == "O":
        return b"".join(struct.pack("<I", len(item)) + item for item in array.ravel())
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _from_binary(name: str, blob: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    count = math.prod(shape)
    if dtype.kind == "O":
        return _objects(_split(name, blob, count), shape)
    if len(blob) != count * dtype.itemsize:
        raise WireError(
            f"tensor {name!r} of shape {list(shape)}: expected {count * dtype.itemsize} bytes, found {len(blob)}"
        )
    return np.frombuffer(blob, dtype).reshape(shape)


def _split(name: str, blob: bytes, count: int) -> list[bytes]:
    items: list[bytes] = []
    at = 0
    while at < len(blob):
        size_bytes = struct.unpack_from("<I", blob, at)[0] if at + 4 <= len(blob) else len(blob)
        if at + 4 + size_bytes > len(blob):
            raise WireError(f"tensor {name!r}: its element {len(items)} runs over its end")
        items.append(blob[at + 4 : at + 4 + size_bytes])
        at += 4 + size_bytes
    if len(items) != count:
        raise WireError(f"tensor {name!r}: expected {count} elements, found {len(items)}")
    return items


def _to_json(array: np.ndarray) -> dict[str, Any]:
    if array.dtype.kind != "O":
        return {"data": array.ravel().tolist()}
    try:
        return {"data": [item.decode() for item in array.ravel()]}
    except UnicodeDecodeError:
        return {"data": [base64.b64encode(item).decode() for item in array.ravel()], "parameters": BASE64}


def _is_base64(parameters: Any) -> bool:  # noqa: ANN401 - whatever came
    return isinstance(parameters, dict) and parameters.get("content_type") == BASE64["content_type"]


def _from_base64(name: str, array: np.ndarray) -> np.ndarray:
    try:
        return _objects([base64.b64decode(item, validate=True) for item in array.ravel()], array.shape)
    except ValueError:
        raise WireError(f"tensor {name!r}: expected base64, as its content_type says, found other text") from None


def _from_json(name: str, data: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:  # noqa: ANN401 - JSON
    try:
        # numpy would read "1" as 1, 1.5 as 1 and null as NaN; what JSON's types say is kept apart here
        values = np.asarray(data, dtype=object).ravel()  # as objects: one long text would size all the others
        if not isinstance(data, list) or not set(map(type, values)) <= _JSON_TYPES[dtype.kind]:
            raise ValueError
        if dtype.kind == "O":
            values = _objects([item.encode() for item in values], values.shape)
        with np.errstate(over="ignore"):  # a number too large for its type is infinite
            return values.astype(dtype).reshape(shape)
    except (ValueError, OverflowError):
        raise WireError(
            f"tensor {name!r}: expected a list of {math.prod(shape)} {_DATATYPES[dtype]} values, found {_short(data)}"
        ) from None


def _objects(items: list[bytes], shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array.reshape(shape)


def _short(found: Any) -> str:  # noqa: ANN401 - whatever came
    text = " ".join(repr(found).split())
    return text if len(text) <= 80 else text[:77] + "..."
