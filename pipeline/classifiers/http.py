"""One HTTP endpoint, asked with patience: a deadline for each request, retries, one clear line when it's over.

For clients of any protocol over HTTP. What the other side says is not to be trusted: bodies are
bounded, packed ones as well, no cookie is kept, its text is cut short and freed of control characters,
and the token is taken out of it.
"""

from __future__ import annotations

import re
import ssl
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers.gate import Gate
from pipeline.classifiers.patience import RETRIED, Patience, TryAgain, retry_after_s
from pipeline.classifiers.quoting import quoted
from pipeline.classifiers.tensors import WireError, read_object
from pipeline.errors import ClassifierError, RequestFailedError

MAX_REPLY_BYTES = 64 * 2**20

_HINTS = {
    401: " Set the token, for example as ZIPSTAGE_CLASSIFIER__TOKEN.",
    403: " Set the token, for example as ZIPSTAGE_CLASSIFIER__TOKEN.",
    404: " Correct classifier.url, model or version.",
    413: " Lower classifier.batch.",
}
_OF_ITS_FORM = frozenset({400, 415, 422, 500, 501})
"""Statuses that may blame the form of a request, and neither its place nor who sends it."""
_BREAKS_DOWN = "It is there and breaks down at this request: its own log says why."
_OTHER_PORT = "Is it another service's port, one for gRPC, or one for https? Correct classifier.url."
_NO_TLS = "Is it http:// there, not https://? Correct classifier.url; else run again when it is back."
_NOBODY = "Run again when it is back; if it never was there, correct classifier.url."


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply, its body read."""

    body: bytes
    headers: httpx.Headers


class Endpoint:
    """Sends requests to `config.url`; keeps its connections alive, verifies TLS, follows no redirect.

    Args:
        config: Where, with which token and headers, deadline and number of attempts.
        gate: What each attempt goes through first.

    Raises:
        ClassifierError: The URL, the token or a header can't be used.
    """

    def __init__(self, config: ClassifierConfig, gate: Gate) -> None:
        self._token = config.token.get_secret_value() if config.token else None
        self._url = _base_url(str(config.url))
        self._adds_v2 = config.protocol == "open-inference-v2"
        named = f" {config.model!r}" if config.model else ""
        self.url = str(self._url).rstrip("/")
        self.where = f"classifier{named} at {self.url} ({config.protocol})"
        if self._token is not None and not re.fullmatch(r"[!-~]+", self._token):
            raise ClassifierError(f"{self.where}: expected a token of visible ASCII characters, found others in it.")
        self._patience = Patience(config, self.where, gate)
        own = {name: value.get_secret_value() for name, value in config.headers.items()}
        self._secrets = [secret for secret in (self._token, *own.values()) if secret]
        self._http = httpx.AsyncClient(
            headers={"Accept-Encoding": "identity"} | _authorization(self._token) | own,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            timeout=None,  # httpx counts each read apart; the deadline of the whole request is asyncio's
            limits=httpx.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency),
            mounts={f"all://{host}": None for host in ("127.0.0.1", "localhost", "[::1]")},  # past any proxy
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def get(self, path: str) -> Reply:
        """See `post`."""
        return await self._send("GET", path, b"", {}, 0)

    async def post(self, path: str, body: bytes, headers: Mapping[str, str], num_images: int, form: str = "") -> Reply:
        """The reply to one request, in as many attempts as it takes and are allowed.

        Args:
            path: Below the URL.
            body: What is sent.
            headers: Beside those of every request.
            num_images: Images in it.
            form: What people may set where the server doesn't take the form of the request.

        Raises:
            ClassifierAwayError: No attempt brought a reply.
            ClassifierError: The server refuses the request.
        """
        return await self._send("POST", path, body, headers, num_images, form)

    async def _send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], num_images: int, form: str = ""
    ) -> Reply:
        async def attempt() -> Reply:
            reply, status = await self._send_once(method, path, body, headers)
            self._check(status, reply, f"{method} {path}".rstrip(), form)
            return reply

        return await self._patience.send(attempt, f"{method} {path}".rstrip(), num_images)

    async def _send_once(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[Reply, int]:
        whole = self._url.raw_path.rstrip(b"/") + path.encode() if path else self._url.raw_path
        url = self._url.copy_with(raw_path=whole)
        try:
            async with self._http.stream(method, url, content=body, headers=dict(headers)) as response:
                found = await self._read(response)
        except httpx.RequestError as error:
            reason = self.quote(str(error)) or type(error).__name__
            if _is_caused_by(error, ssl.SSLCertVerificationError):
                raise ClassifierError(
                    f"{self.where}: expected a certificate that can be trusted, found: {reason}. "
                    "Name a file with its CA in SSL_CERT_FILE."
                ) from None
            if re.search("illegal (status|request) line", reason):
                raise TryAgain("a reply that is no HTTP/1.1", error=RequestFailedError, advice=_OTHER_PORT) from None
            if isinstance(error, (httpx.ReadError, httpx.RemoteProtocolError)):  # a server that dies of a picture
                raise TryAgain(f"no whole reply: {reason}", error=RequestFailedError) from None
            if _is_caused_by(error, ssl.SSLError):
                raise TryAgain("no TLS connection", advice=_NO_TLS) from None
            raise TryAgain(f"no connection: {reason}", advice=_NOBODY) from None
        return Reply(found, response.headers), response.status_code

    async def _read(self, response: httpx.Response) -> bytes:
        chunks, read_bytes = [], 0
        async for chunk in response.aiter_raw():
            chunks.append(chunk)
            read_bytes += len(chunk)
            if read_bytes > MAX_REPLY_BYTES:
                raise self._too_large()
        return self._unpacked(b"".join(chunks), response.headers.get("Content-Encoding", "identity"))

    def _unpacked(self, body: bytes, encoding: str) -> bytes:
        """The body as it was before it was packed: some proxies do so unasked. A bomb is not unfolded."""
        match encoding.strip().lower():
            case "" | "identity":
                return body
            case "gzip" | "x-gzip":
                inflating = zlib.decompressobj(zlib.MAX_WBITS | 16)
            case "deflate":
                inflating = zlib.decompressobj()
            case _:
                raise ClassifierError(
                    f"{self.where}: expected a reply that is not packed, or by gzip, found Content-Encoding "
                    f"{self.quote(encoding)}."
                )
        try:
            whole = inflating.decompress(body, MAX_REPLY_BYTES)
        except zlib.error as error:
            raise ClassifierError(f"{self.where}: its packed reply can't be read: {error}.") from None
        if inflating.unconsumed_tail:
            raise self._too_large()
        if not inflating.eof:
            raise ClassifierError(f"{self.where}: its packed reply can't be read: it ends too soon.")
        return whole

    def _too_large(self) -> ClassifierError:
        return ClassifierError(
            f"{self.where}: expected a reply of at most {MAX_REPLY_BYTES} bytes, found more. "
            "Name a smaller output by classifier.output, or lower classifier.batch."
        )

    def _check(self, status: int, reply: Reply, request: str, form: str) -> None:
        if status == 200:
            return
        found, pause_s = f"status {status}: {self._said(reply.body)}", retry_after_s(reply.headers.get("Retry-After"))
        form = form if status in _OF_ITS_FORM else ""
        if status == 500:
            raise TryAgain(found, pause_s, RequestFailedError, advice=f"{_BREAKS_DOWN}{form}")
        if status in RETRIED:
            raise TryAgain(found, pause_s)
        raise ClassifierError(f"{self.where}: refuses {request}: {found.rstrip('.')}.{self._hint(status)}{form}")

    def _hint(self, status: int) -> str:
        if status == 404 and self._adds_v2 and "/v2" in self._url.path:
            return " classifier.url ends before /v2, which is added."
        if status in (401, 403) and self._token:
            return " Correct classifier.token: it is set, and not taken. Has it expired?"
        return _HINTS.get(status, "")

    def _said(self, body: bytes) -> str:
        try:
            message = read_object(body).get("error")
        except WireError:
            message = None
        return self.quote(message if isinstance(message, str) else body[:1000].decode("utf-8", "replace")) or "no word"

    def hide(self, text: str) -> str:
        """The text without a secret: a server may say it back."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def quote(self, text: str) -> str:
        """Text of the other side, fit for a message: one short line, without a secret."""
        return quoted(text, self._secrets)


def _authorization(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _base_url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise ClassifierError("classifier.url: expected http(s)://host:port, found something else.")
    if url.userinfo:  # the URL stands in messages and records
        raise ClassifierError("classifier.url: expected no user name or password in it. Use classifier.token.")
    return url


def _is_caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False
