"""Classifier servers that this project did not write, a gateway before them, and the commands run against them.

The servers run in environments of their own (tests/servers); where such a one can't be made, tests are skipped and
say why. All of them serve the demo's network, so that onnxruntime by itself can say every answer.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from making import encoded, write_tar

from jobs.demo.drawing import CLASS_NAMES, draw

ROOT = Path(__file__).parents[1]
SERVERS = ROOT / "tests" / "servers"
SIGNS = ROOT / "jobs" / "demo" / "signs.onnx"
TOKEN = "a-token-that-nobody-may-read"
START_S = 300.0
NORMALISED = {"input.mean": "[0.5]", "input.std": "[0.5]"}


@dataclass(frozen=True)
class Server:
    """A server that answers: where, and where its gRPC port is if it has one."""

    url: str
    grpc_url: str | None = None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def python_of(kind: str) -> str:
    """The python of a server's environment, which is made when it isn't there."""
    made = subprocess.run(
        [SERVERS / "environment.sh", kind],
        env={**os.environ, "SERVERS_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(made.stderr.strip() or f"no environment for {kind} can be made")
    return made.stdout.strip()


def write_labels(folder: Path) -> Path:
    path = folder / "labels.txt"
    path.write_text("\n".join(CLASS_NAMES) + "\n")
    return path


@contextmanager
def triton(folder: Path) -> Iterator[Server]:
    python, port, grpc_port = python_of("triton"), free_port(), free_port()
    library = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
    folder_of_libpython = subprocess.run([python, "-c", library], capture_output=True, text=True, check=True).stdout
    search = os.pathsep.join(filter(None, [folder_of_libpython.strip(), os.environ.get("LD_LIBRARY_PATH")]))
    path = os.pathsep.join([str(Path(python).parent), os.environ["PATH"]])  # its stub looks for `python` there
    command = [python, SERVERS / "triton_server.py", SIGNS, "--port", port, "--grpc-port", grpc_port]
    command += ["--workspace", folder / "workspace", "--labels", write_labels(folder)]
    with _running(command, {"LD_LIBRARY_PATH": search, "PATH": path}, port, folder):
        yield Server(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{grpc_port}")


@contextmanager
def kserve(folder: Path) -> Iterator[Server]:
    port = free_port()
    command = [python_of("kserve"), SERVERS / "kserve_server.py", SIGNS, "--port", port]
    command += ["--labels", write_labels(folder)]
    with _running(command, {}, port, folder):
        yield Server(f"http://127.0.0.1:{port}")


@contextmanager
def _running(command: Sequence[object], environment: dict[str, str], port: int, folder: Path) -> Iterator[None]:
    """A server as a process group of its own, from its first whole answer to the end of the block."""
    log = folder / "server.log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            list(map(str, command)),
            env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
            cwd=folder,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_for(process, port, log)
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/v2/models/signs-files/ready")  # the last one to be loaded
            status = connection.getresponse().status
            connection.close()
            if status == 200:
                return
        time.sleep(0.5)
    raise AssertionError(f"the server doesn't answer: {log.read_text(errors='replace')[-2000:]}")


# --- a gateway that asks for a token, and may be slow or break off ------------------------------------


class Gateway(ThreadingHTTPServer):
    """Hands on what comes with the right token; `mode` says how well: 'whole', 'slow', 'half'."""

    daemon_threads = True

    def __init__(self, server: Server) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.to = server.url.removeprefix("http://")
        self.mode = "whole"
        self.let_go = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Relay(BaseHTTPRequestHandler):
    server: Gateway
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._relay(b"")

    def do_POST(self) -> None:
        self._relay(self.rfile.read(int(self.headers["Content-Length"])))

    def _relay(self, body: bytes) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"Content-Type": "text/html"}, b"<html>Sign in first</html>")
            return
        if self.server.mode == "slow" and body:
            self.server.let_go.wait()
        sent = {name: text for name, text in self.headers.items() if name not in ("Host", "Authorization")}
        connection = http.client.HTTPConnection(self.server.to)
        connection.request(self.command, self.path, body or None, sent)
        reply = connection.getresponse()
        found = reply.read()
        connection.close()
        kept = {name: text for name, text in reply.getheaders() if name.lower() in _KEPT}
        self._answer(reply.status, kept, found)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        is_half = self.server.mode == "half" and self.command == "POST"
        self.close_connection = is_half
        with suppress(ConnectionError):  # who asked may have lost patience
            self.send_response(status)
            for name, text in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if is_half else body)


_KEPT = {"content-type", "inference-header-content-length"}


@contextmanager
def gateway(server: Server) -> Iterator[Gateway]:
    with Gateway(server) as before:
        thread = threading.Thread(target=before.serve_forever, daemon=True)
        thread.start()
        try:
            yield before
        finally:
            before.let_go.set()
            before.shutdown()
            thread.join()


# --- what is asked about, and what is right -------------------------------------------------------------


def signs(count: int) -> np.ndarray:
    """Drawn traffic signs, uint8 [n, 32, 32, 3]."""
    return draw(count, seed=0).images


def logits_of(images: np.ndarray) -> np.ndarray:
    """What the network says, by onnxruntime alone."""
    session = onnxruntime.InferenceSession(SIGNS, providers=["CPUExecutionProvider"])
    batch = (images.transpose(0, 3, 1, 2).astype(np.float32) / 255 - 0.5) / 0.5
    return np.asarray(session.run(["logits"], {"image": batch.astype(np.float32)})[0])


def write_shard(path: Path, images: np.ndarray) -> None:
    write_tar(path, [[(f"{i:06d}.png", encoded(image))] for i, image in enumerate(images)])


def zipstage(*words: object, token: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command as people do; says what was typed, what was told, and the exit code."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("ZIPSTAGE_")}
    if token is not None:
        environment["ZIPSTAGE_CLASSIFIER__TOKEN"] = token
    done = subprocess.run(
        [sys.executable, "-m", "jobs", *map(str, words)],
        cwd=ROOT,
        env={**environment, "OMP_NUM_THREADS": "1", "COLUMNS": "110"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert TOKEN not in done.stdout + done.stderr
    return done


def classifier(server_url: str, model: str, **fields: object) -> list[str]:
    """The flags of a V2 classifier; two attempts, so that what is away is so soon."""
    values = {"protocol": "open-inference-v2", "url": server_url, "model": model, "attempts": 2, **fields}
    return [f"--classifier.{name.replace('__', '.')}={value}" for name, value in values.items()]


def told(title: str, done: subprocess.CompletedProcess[str]) -> None:
    """Print what a command said."""
    print(f"\n# {title}: exit {done.returncode}")
    for line in [*done.stdout.splitlines(), *done.stderr.splitlines()]:
        print(f"  {line}")
