"""A proxy in front of the real S3 server that breaks one request, or many, in a chosen way.

It speaks plain HTTP/1.1 on both sides and forwards bytes unchanged, so signatures stay whole. Each
request is noted, which makes it a counter as well. A trap: clients send several at once, so the n-th
request of a run may be another one in the next; go by kind and number rather than by number alone.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, Self
from urllib.parse import unquote, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

Fault = Literal["500", "503", "expired", "denied", "forgotten", "reset", "hang", "lost", "head", "cut", "stall"]
"""What becomes of a request. The server never sees the first six, and does what the others ask.

    500, 503, expired, denied, forgotten   such an answer; forgotten: there is no such upload
    reset    the connection is reset         hang    no answer at all
    lost     the same, once it is done       head    half of the answer's head, then the end
    cut      half of the answer's body       stall   the same, and no end
"""

Kind = Literal["get", "head", "list", "put", "create", "begin", "part", "complete", "abort", "delete", "other"]

_CODES = {
    "500": "InternalError",
    "503": "SlowDown",
    "expired": "ExpiredToken",
    "denied": "AccessDenied",
    "forgotten": "NoSuchUpload",
}
_STATUS = {"500": "500 Internal Server Error", "503": "503 Service Unavailable", "forgotten": "404 Not Found"}
_CONDITIONS = ("if-none-match", "if-match")
_MAX_HEAD = 1 << 20


@dataclass(frozen=True)
class Asked:
    """One request: its place among those of its kind, and what it asks for.

    Args:
        number: From 1, over all requests since the proxy began or `forget` was called.
        of_kind: The same over those of its kind.
        path: Bucket and key, as people write them.
        query: As sent.
        headers: By lower-case name.
    """

    number: int
    of_kind: int
    kind: Kind
    path: str
    query: str
    headers: dict[str, str]

    @property
    def range(self) -> str:
        return self.headers.get("range", "")


def _kind(method: str, query: str, headers: dict[str, str]) -> Kind:
    names = {pair.partition("=")[0] for pair in query.split("&")}
    match method:
        case "GET":
            return "list" if names & {"list-type", "prefix", "delimiter"} else "get"
        case "HEAD":
            return "head"
        case "PUT" if "partNumber" in names:
            return "part"
        case "PUT":
            return "create" if "if-none-match" in headers else "put"
        case "POST" if "uploads" in names:
            return "begin"
        case "POST" if "uploadId" in names:
            return "complete"
        case "DELETE" if "uploadId" in names:
            return "abort"
        case "DELETE" | "POST":
            return "delete"
    return "other"


@dataclass
class _Message:
    """A request or an answer, whole: its first line, its header lines and its body."""

    first: str
    lines: list[str]
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        pairs = (line.partition(":") for line in self.lines)
        return {name.strip().lower(): value.strip() for name, _, value in pairs}

    def head(self) -> bytes:
        return "\r\n".join([self.first, *self.lines, "", ""]).encode("latin-1")


@dataclass
class FaultyS3:
    """The proxy; `with FaultyS3(url) as proxy:` serves until the block ends, in a thread of its own.

    Args:
        upstream: The real server's URL.
        tls: A server's TLS context; none: plain HTTP.
        deaf_as: Credentials to sign anew with, which makes it a server that ignores If-None-Match and If-Match.
        breaks: Says what becomes of a request; None: it is served.
        asked: All requests so far.
    """

    upstream: str
    tls: ssl.SSLContext | None = None
    deaf_as: Credentials | None = None
    breaks: Callable[[Asked], Fault | None] = lambda asked: None
    asked: list[Asked] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._serving: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        is_up = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(is_up),), daemon=True)
        self._thread.start()
        is_up.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"

    def forget(self) -> None:
        """Count from 1 again."""
        self.asked.clear()

    def count(self, kind: Kind) -> int:
        return sum(asked.kind == kind for asked in self.asked)

    # --- serving ---

    async def _serve(self, is_up: threading.Event) -> None:
        server = await asyncio.start_server(self._connected, sock=self._listener, ssl=self.tls, limit=_MAX_HEAD)
        is_up.set()
        await self._ended.wait()
        server.close()
        await server.wait_closed()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await asyncio.sleep(0.05)  # transports, broken TLS handshakes among them, close a turn or two later

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        try:
            while (request := await _receive(reader)) is not None:
                if not await self._answer(request, reader, writer):
                    return
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client, or the server, went away in the middle: so be it
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            writer.close()

    async def _answer(self, request: _Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve a request or break it; gives whether the connection is still good."""
        fault = self.breaks(self._note(request))
        if fault in _CODES:
            writer.write(_refusal(fault))
            await writer.drain()
            return True
        if fault == "reset":
            return _reset(writer)
        if fault == "hang":
            await reader.read()  # ends when the client gives up
            return False
        answer = await self._forwarded(request)
        if fault == "lost":
            return _reset(writer)
        if fault == "head":
            writer.write(answer.head()[: len(answer.head()) // 2])
        elif fault in ("cut", "stall"):
            writer.write(answer.head() + answer.body[: len(answer.body) // 2])
        else:
            writer.write(answer.head() + answer.body)
        await writer.drain()
        if fault == "stall":
            await reader.read()
        return fault is None

    def _note(self, request: _Message) -> Asked:
        method, target, _ = request.first.split(" ", 2)
        split = urlsplit(target)
        kind = _kind(method, split.query, request.headers)
        path = unquote(split.path).strip("/")
        asked = Asked(len(self.asked) + 1, self.count(kind) + 1, kind, path, split.query, request.headers)
        self.asked.append(asked)
        return asked

    async def _forwarded(self, request: _Message) -> _Message:
        to = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(to.hostname, to.port, limit=_MAX_HEAD)
        try:
            if self.deaf_as and request.headers.keys() & set(_CONDITIONS):
                request = _without_condition(request, self.deaf_as)
            writer.write(request.head() + request.body)
            await writer.drain()
            answer = await _receive(reader, to=request.first.split(" ", 1)[0])
        finally:
            writer.close()
        if answer is None:
            raise ConnectionResetError("the server closed the connection")
        return answer


async def _receive(reader: asyncio.StreamReader, to: str | None = None) -> _Message | None:
    """A whole message; None at the end of the connection. `to` is the method that an answer is to."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1")[:-4].split("\r\n")
    message = _Message(first, lines, b"")
    headers = message.headers
    if to is not None and first.split(" ")[1] == "100":
        return await _receive(reader, to)
    if headers.get("transfer-encoding") == "chunked":
        message.body = await _chunks(reader)
    elif to != "HEAD" and (to is None or first.split(" ")[1] not in ("204", "304")):
        message.body = await reader.readexactly(int(headers.get("content-length", "0")))
    return message


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """A chunked body, as it was sent: sizes included."""
    pieces = []
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        pieces += [line, await reader.readexactly(size + 2)]
        if size == 0:
            return b"".join(pieces)


def _refusal(fault: Fault | None) -> bytes:
    code = _CODES[str(fault)]
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>no</Message></Error>'.encode()
    status = _STATUS.get(str(fault), "403 Forbidden")
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/xml", f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def _reset(writer: asyncio.StreamWriter) -> bool:
    """End a connection with RST instead of a polite goodbye."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


def _without_condition(request: _Message, credentials: Credentials) -> _Message:
    """The same request without its condition, signed anew: the header is part of the signature."""
    method, target, _ = request.first.split(" ", 2)
    signed = ("host", "x-amz-content-sha256", "x-amz-security-token")
    headers = {name: value for name, value in request.headers.items() if name in signed}
    anew = AWSRequest(method, f"http://{headers['host']}{target}", headers=headers, data=request.body)
    S3SigV4Auth(credentials, "s3", "us-east-1").add_auth(anew)
    replaced = {*_CONDITIONS, "authorization", *(name.lower() for name in anew.headers)}
    kept = [line for line in request.lines if line.partition(":")[0].lower() not in replaced]
    lines = [*kept, *(f"{name}: {value}" for name, value in anew.headers.items())]
    return _Message(request.first, lines, request.body)
