"""`zipstage serve`: one ONNX or torch.export file behind the Open Inference Protocol V2 over HTTP.

For trying things out, the demo and the tests: one process, no batching across requests, no
authentication. Trap: it listens on 127.0.0.1 unless told otherwise, and whoever reaches it may ask.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.classifiers.network import Network
from pipeline.classifiers.tensors import HEADER_LENGTH, TensorSpec, WireError, datatype_of, pack, unpack
from pipeline.errors import ClassifierError, ConfigError
from zipstage import __version__

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
except ModuleNotFoundError as missing:
    raise ConfigError(f"serve: {missing.name} is missing: pip install 'zipstage[serve]'") from None

VERSION = "1"
_STOP_S = 5


def load_network(path: str) -> Network:
    """The network of a file, by its suffix: `.onnx`, or `.pt2` of `torch.export.save` (which is trusted).

    Raises:
        ConfigError: Another suffix.
        ClassifierError: The file isn't there or can't be read.
    """
    match Path(path).suffix.lower():
        case ".onnx":
            from pipeline.classifiers.onnx import OnnxNetwork

            return OnnxNetwork(path)
        case ".pt2":
            from pipeline.classifiers.torch_export import TorchExportNetwork

            return TorchExportNetwork(path)
        case suffix:
            raise ConfigError(f"serve {path}: expected a file .onnx or .pt2, found {suffix or 'no suffix'}.")


def application(network: Network, name: str = "classifier") -> Starlette:
    """The ASGI app that answers for one network.

    Args:
        network: Anything that says what it takes and runs batches, not only a file.
        name: The model's name in URLs.
    """
    model = _Model(network, name)
    routes = [
        Route("/v2", model.server),
        Route("/v2/health/live", model.live),
        Route("/v2/health/ready", model.ready),
    ]
    for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        routes += [
            Route(base, model.only_ours(model.metadata)),
            Route(f"{base}/ready", model.only_ours(model.ready)),
            Route(f"{base}/infer", model.only_ours(model.infer), methods=["POST"]),
        ]
    return Starlette(routes=routes, exception_handlers={404: _no_such_page})


def serve(
    path: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str = "classifier",
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a file until SIGINT or SIGTERM.

    Args:
        path: The network, `.onnx` or `.pt2`.
        host: Address to listen on.
        port: Its port; 0 takes a free one.
        name: The model's name in URLs.
        ready: Called with the URL as soon as connections are taken.

    Raises:
        ConfigError: Not such a file, or the port is taken.
        ClassifierError: The file can't be read.
    """
    app = application(load_network(path), name)
    with _listening(host, port) as (listener, url):
        if ready is not None:
            ready(url)
        with suppress(KeyboardInterrupt):  # Ctrl-C is how a server ends
            _server(app).run(sockets=[listener])


@contextmanager
def running(app: Starlette) -> Iterator[str]:
    """The URL of an app that runs in a thread on a free port of 127.0.0.1, until the block ends."""
    with _listening("127.0.0.1", 0) as (listener, url):
        server = _server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="serve", daemon=True)
        thread.start()
        try:
            yield url
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def _listening(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    # listening before the server runs: a client that comes at once waits in the queue, nobody polls
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(f"serve: can't listen on {host}:{port}: {error.strerror}. Choose another --port.") from None
    with listener:
        shown = f"[{host}]" if ":" in host else host
        yield listener, f"http://{shown}:{listener.getsockname()[1]}"


def _server(app: Starlette) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(app, lifespan="off", log_level="warning", timeout_graceful_shutdown=_STOP_S, ws="none")
    )


class _Model:
    """The protocol's endpoints for one network."""

    def __init__(self, network: Network, name: str) -> None:
        self._network = network
        self._name = name

    def only_ours(self, endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def checked(request: Request) -> Response:
            name, version = request.path_params["model"], request.path_params.get("version", VERSION)
            if (name, version) != (self._name, VERSION):
                return _error(
                    404, f"no model {name!r} of version {version}; here is {self._name!r} of version {VERSION}"
                )
            return await endpoint(request)

        return checked

    async def server(self, request: Request) -> Response:
        return JSONResponse({"name": "zipstage", "version": __version__, "extensions": ["binary_tensor_data"]})

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        return JSONResponse({"name": self._name, "ready": True})

    async def metadata(self, request: Request) -> Response:
        return JSONResponse(
            {
                "name": self._name,
                "versions": [VERSION],
                "platform": "zipstage",
                "inputs": [_described(self._network.input)],
                "outputs": [_described(spec) for spec in self._network.outputs],
            }
        )

    async def infer(self, request: Request) -> Response:
        try:
            fields, tensors = unpack(await request.body(), request.headers.get(HEADER_LENGTH), "inputs")
            batch = self._batch(tensors)
            wanted = _wanted(fields, [spec.name for spec in self._network.outputs])
            outputs = await asyncio.to_thread(self._network.run, batch)
            answer: dict[str, Any] = {"model_name": self._name, "model_version": VERSION}
            if isinstance(fields.get("id"), str):
                answer["id"] = fields["id"]
            binary = [name for name, is_binary in wanted.items() if is_binary]
            body, headers = pack(answer, "outputs", {name: outputs[name] for name in wanted}, binary)
        except (WireError, ClassifierError) as error:
            return _error(400, str(error))
        return Response(body, headers=headers)

    def _batch(self, tensors: dict[str, np.ndarray]) -> np.ndarray:
        spec = self._network.input
        if list(tensors) != [spec.name]:
            raise WireError(f"expected one input {spec.name!r}, found {', '.join(map(repr, tensors)) or 'none'}")
        batch = tensors[spec.name]
        datatype, shape = datatype_of(batch.dtype), spec.shape or (-1,) * batch.ndim
        fits = len(shape) == batch.ndim and all(want in (-1, got) for want, got in zip(shape, batch.shape, strict=True))
        if datatype != spec.datatype or not fits:
            found = f"{datatype} {list(batch.shape)}"
            raise WireError(f"input {spec.name!r}: expected {spec.datatype} {list(shape)}, found {found}")
        # a network may keep what it is given, or write into it: bytes of a request are read-only
        return batch.copy()


def _wanted(fields: dict[str, Any], known: list[str]) -> dict[str, bool]:
    """Outputs to send, by name: whether as binary data."""
    all_binary = _parameter(fields, "binary_data_output")
    listed = fields.get("outputs")
    if not listed:
        return dict.fromkeys(known, all_binary)
    if not isinstance(listed, list) or not all(isinstance(item, dict) and item.get("name") in known for item in listed):
        raise WireError(f"expected `outputs` to name some of {', '.join(map(repr, known))}, found something else")
    return {item["name"]: _parameter(item, "binary_data", all_binary) for item in listed}


def _parameter(item: dict[str, Any], name: str, default: bool = False) -> bool:
    parameters = item.get("parameters") or {}
    if not isinstance(parameters, dict) or not isinstance(parameters.get(name, default), bool):
        raise WireError(f"expected `parameters` with {name!r} true or false, found something else")
    return bool(parameters.get(name, default))


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape or ())}


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status_code=status)


async def _no_such_page(request: Request, error: Exception) -> Response:
    return _error(404, f"no such page: {request.url.path}")
