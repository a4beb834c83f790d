"""One HTTP endpoint, asked with patience: a deadline for each request, retries, one clear line when it's over.

For clients of any protocol over HTTP. What the other side says is not to be trusted: bodies are
bounded, packed ones as well, no cookie is kept, its text is cut short and freed of control characters,
and the token is taken out of it.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx
import stamina

from pipeline.classifiers.tensors import WireError, read_object
from pipeline.config import ClassifierConfig
from pipeline.errors import ClassifierAwayError, ClassifierError, RequestFailedError

RETRIED = frozenset({429, 500, 502, 503, 504})
MAX_WAIT_S = 20.0
MAX_RETRY_AFTER_S = 120.0
"""Who asks for more patience than this is away: the shards are committed, and a rerun asks again."""
MAX_REPLY_BYTES = 64 * 2**20

_HINTS = {
    401: " Set the token, for example as ZIPSTAGE_CLASSIFIER__TOKEN.",
    403: " Set the token, for example as ZIPSTAGE_CLASSIFIER__TOKEN.",
    404: " Correct classifier.url, model or version.",
    413: " Lower classifier.batch.",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of status 200, its body read."""

    body: bytes
    headers: httpx.Headers


class _TryAgain(Exception):  # noqa: N818 - a signal between two methods, nobody else sees it
    def __init__(
        self, found: str, retry_after_s: float | None = None, error: type[ClassifierAwayError] = ClassifierAwayError
    ) -> None:
        super().__init__(found)
        self.retry_after_s = retry_after_s
        self.error = error


class Endpoint:
    """Sends requests to `config.url`; keeps its connections alive, verifies TLS, follows no redirect.

    Args:
        config: Where, with which token, deadline and number of attempts.

    Raises:
        ClassifierError: The URL or the token can't be used.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        self._token = config.token.get_secret_value() if config.token else None
        self._url = _base_url(str(config.url))
        self.where = f"classifier {config.model!r} at {str(self._url).rstrip('/')} ({config.protocol})"
        if self._token is not None and not re.fullmatch(r"[!-~]+", self._token):
            raise ClassifierError(f"{self.where}: expected a token of visible ASCII characters, found others in it.")
        self._timeout_s = config.timeout_s
        self._attempts = config.attempts
        self._retrying = stamina.AsyncRetryingCaller(
            attempts=config.attempts, timeout=None, wait_initial=0.25, wait_max=MAX_WAIT_S, wait_jitter=1.0
        ).on(_pause)
        self._http = httpx.AsyncClient(
            headers={"Accept-Encoding": "identity"} | _authorization(self._token),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            timeout=None,  # httpx counts each read apart; the deadline of the whole request is asyncio's
            limits=httpx.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency),
            mounts={f"all://{host}": None for host in ("127.0.0.1", "localhost", "[::1]")},  # past any proxy
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def get(self, path: str) -> Reply:
        """See `post`."""
        return await self._send("GET", path, b"", {})

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """The reply to one request, in as many attempts as it takes and are allowed.

        Raises:
            ClassifierAwayError: No attempt brought a reply.
            ClassifierError: The server refuses the request.
        """
        return await self._send("POST", path, body, headers)

    async def _send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        async def attempt() -> Reply:  # a closure: stamina logs arguments, and the body is megabytes
            return await self._send_once(method, path, body, headers)

        try:
            return await self._retrying(attempt)
        except _TryAgain as last:
            times = "attempt" if self._attempts == 1 else "attempts"
            raise last.error(
                f"{self.where}: expected an answer to {method} {path}, in up to {self._attempts} {times} "
                f"came {last}. Run again when it is back."
            ) from None

    async def _send_once(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        url = self._url.copy_with(raw_path=self._url.raw_path.rstrip(b"/") + path.encode())
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._http.stream(method, url, content=body, headers=dict(headers)) as response,
            ):
                found = await self._read(response)
        except TimeoutError:
            raise _TryAgain(f"nothing within {self._timeout_s:g} s") from None
        except httpx.RequestError as error:
            reason = self.quote(str(error)) or type(error).__name__
            if _is_certificate_error(error):
                raise ClassifierError(
                    f"{self.where}: expected a certificate that can be trusted, found: {reason}. "
                    "Name a file with its CA in SSL_CERT_FILE."
                ) from None
            if isinstance(error, (httpx.ReadError, httpx.RemoteProtocolError)):  # a server that dies of a picture
                raise _TryAgain(f"no whole reply: {reason}", error=RequestFailedError) from None
            raise _TryAgain(f"no connection: {reason}") from None
        self._check(response.status_code, found, response.headers, f"{method} {path}")
        return Reply(found, response.headers)

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

    def _check(self, status: int, body: bytes, headers: httpx.Headers, request: str) -> None:
        if status == 200:
            return
        found = f"status {status}: {self._said(body)}"
        if status in RETRIED:
            error = RequestFailedError if status == 500 else ClassifierAwayError
            raise _TryAgain(found, _retry_after_s(headers.get("Retry-After")), error)
        raise ClassifierError(f"{self.where}: refuses {request}: {found}.{_HINTS.get(status, '')}")

    def _said(self, body: bytes) -> str:
        try:
            message = read_object(body).get("error")
        except WireError:
            message = None
        return self.quote(message if isinstance(message, str) else body[:1000].decode("utf-8", "replace")) or "no word"

    def quote(self, text: str) -> str:
        """Text of the other side, fit for a message: one short line, without the token."""
        if self._token:
            text = text.replace(self._token, "***")
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return line if len(line) <= 200 else line[:197] + "..."


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


def _pause(error: Exception) -> bool | float:
    if not isinstance(error, _TryAgain):
        return False
    if error.retry_after_s is None:
        return True
    return error.retry_after_s if error.retry_after_s <= MAX_RETRY_AFTER_S else False


def _retry_after_s(value: str | None) -> float | None:
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, IndexError, TypeError, OverflowError):  # all of these come out of dates that are none
        return None


def _is_certificate_error(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
