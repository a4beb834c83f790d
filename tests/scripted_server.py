"""A V2 server over plain sockets that fails as a test says: byte by byte, and counted by requests, never by a clock.

Its network answers with the mean of each channel, so that anyone can say the answer by hand. A script
looks at each request and says what becomes of it; what was asked is kept, to be counted afterwards.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

METADATA = {
    "name": "colour",
    "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 3, -1, -1]}],
    "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 3]}],
}


@dataclass(frozen=True)
class Request:
    """One request.

    Args:
        number: Of those that ask about pictures, from 0; -1 for one that asks about the model.
        images: Float32 [n, 3, h, w], empty when none were asked about.
        headers: By lower-case name.
    """

    number: int
    images: np.ndarray
    headers: dict[str, str] = field(repr=False)


Act = Callable[[socket.socket], None]
Script = Callable[[Request], bytes | Act | None]
"""Bytes are sent as they stand and the connection is closed; an act does as it likes; None is answered well."""


def reply(body: bytes | str, status: str = "200 OK", **headers: str) -> bytes:
    """A whole HTTP reply; underscores in the names of headers stand for hyphens."""
    data = body.encode() if isinstance(body, str) else body
    named = {"Content-Length": str(len(data)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + data


def scores(rows: Any, datatype: str = "FP32", shape: list[int] | None = None) -> bytes:
    """A reply with an output `scores` as binary data."""
    array = np.asarray(rows, {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8"}[datatype])
    described = {"name": "scores", "shape": shape or list(array.shape), "datatype": datatype}
    text = json.dumps({"outputs": [{**described, "parameters": {"binary_data_size": array.nbytes}}]}).encode()
    return reply(text + array.tobytes(), Inference_Header_Content_Length=str(len(text)))


def means(images: np.ndarray) -> np.ndarray:
    """What the network answers: [n, 3], the same for an image whatever batch it comes in."""
    found: np.ndarray = images.astype(np.float64).mean(axis=(2, 3)).astype(np.float32)
    return found


def reset(connection: socket.socket) -> None:
    """End a connection the hard way."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class ScriptedServer:
    """Used by `with`; `script` may be set anew at any time.

    Args:
        script: What becomes of each request; none: all are answered well.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.refused = 0  # so many connections are still to be reset as they come
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listening.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    @property
    def num_asked(self) -> int:
        """Requests that asked about pictures."""
        return sum(request.number >= 0 for request in self.requests)

    @property
    def pictures(self) -> Counter[str]:
        """How often each picture was asked about, by its digest."""
        return Counter(hashlib.sha256(image.tobytes()).hexdigest() for r in self.requests for image in r.images)

    def forget(self) -> None:
        self.requests.clear()

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            if self.refused:
                self.refused -= 1
                reset(connection)
                continue
            self._connections.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError), connection.makefile("rb") as stream:
            while (request := self._read(stream)) is not None:
                done = self.script(request) if self.script else None
                if callable(done):
                    done(connection)
                    return
                if done is not None:  # said, lest the client takes this connection for its next request
                    connection.sendall(done.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
                    return
                connection.sendall(self.answer(request))

    def _read(self, stream: Any) -> Request | None:
        line = stream.readline()
        if not line:
            return None
        headers: dict[str, str] = {}
        while (text := stream.readline().decode().strip()) != "":
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers.get("content-length", 0)))
        is_ask = line.startswith(b"POST")
        images = self.read_images(body, headers) if is_ask else np.zeros((0, 3, 1, 1), np.float32)
        with self._lock:
            request = Request(self.num_asked if is_ask else -1, images, headers)
            self.requests.append(request)
        return request

    def read_images(self, body: bytes, headers: dict[str, str]) -> np.ndarray:
        """The images of a request, float32 [n, 3, h, w]; another protocol reads them in another way."""
        length = int(headers["inference-header-content-length"])
        (item,) = json.loads(body[:length])["inputs"]
        return np.frombuffer(body[length:], "<f4").reshape(item["shape"])

    def answer(self, request: Request) -> bytes:
        """What a request gets that the script lets pass."""
        return scores(means(request.images)) if request.number >= 0 else reply(json.dumps(METADATA))
