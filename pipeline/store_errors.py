"""What storage says, told to people: obstore's exceptions become those of `pipeline.errors`, one line each.

obstore has few classes; most failures are one `GenericError` whose text holds an HTTP status, S3's
XML error code or the system's error number, so these are looked for in the text; the cause of a
broken connection stands only in its "Debug source". A trap: that text may hold keys and signatures.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from pipeline.errors import (
    ChangedError,
    ExistsError,
    NotFoundError,
    StoreAwayError,
    StoreError,
    StoreRefusedError,
)

_CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
_REFUSED = {
    28: "the disk is full; free some space and run again",
    122: "the disk quota is used up; free some space and run again",
    30: "the file system is read-only; name a place that can be written",
}
_SYSTEM = {
    13: "no permission; check its owner and mode",
    1: "no permission; check its owner and mode",
    20: "a part of the path is a file, not a folder",
    21: "it is a folder, not a file",
    36: "the name is too long for this file system",
}
_TRANSIENT = {"SlowDown", "RequestTimeout", "ServiceUnavailable", "InternalError", "NoSuchUpload"}
"""NoSuchUpload: an upload that the server dropped, or whose completion it has done and not told; both are done anew."""

_AWAY = re.compile(
    r"HTTP error|error sending request|timed? ?out|connection|error decoding response body", re.IGNORECASE
)


@contextmanager
def told(action: str, uri: str) -> Iterator[None]:
    """Turn what obstore raises inside into one line that begins with the action and the URI.

    Args:
        action: What was tried: 'read', 'write', 'list', 'delete'.
        uri: What it was tried on.

    Raises:
        NotFoundError, ExistsError, ChangedError, StoreAwayError, StoreRefusedError, StoreError: By what storage said.
    """
    try:
        yield
    except (BaseError, BotoCoreError, OSError, ValueError) as error:
        # obstore raises the last two for "not found" and for bad paths; boto3's are those of fresh credentials.
        raise tell(error, action, uri) from None


def tell(error: Exception, action: str, uri: str) -> StoreError:
    """The error of `pipeline.errors` that says what an exception of obstore means."""
    text, _, source = str(error).partition("\n\nDebug source:")
    start = f"{uri}: can't {action}: "
    code = _first(r"<Code>(\w+)</Code>", text)
    if code == "NoSuchBucket":
        return StoreRefusedError(f"{start}there is no such bucket. Check the URI and AWS_ENDPOINT_URL.")
    if isinstance(error, (BotoConnectionError, HTTPClientError)):
        return _away(start, f"no answer where fresh credentials come from: {_one_line(text)}")
    if code in _CREDENTIALS or isinstance(error, (UnauthenticatedError, BotoCoreError)):
        return StoreRefusedError(
            f"{start}the credentials were refused ({code or _one_line(text)}). Check AWS_PROFILE or the keys."
        )
    if code == "RequestTimeTooSkewed":
        return StoreRefusedError(f"{start}this machine's clock is off, so requests are refused. Set it right.")
    if refused := _told_of_tls(source):
        return StoreRefusedError(f"{start}{refused}")
    if code in _TRANSIENT:
        return _away(start, code)
    match error:
        case FileNotFoundError():
            return NotFoundError(f"{start}there is no such object.")
        case AlreadyExistsError():
            return ExistsError(f"{start}it is there already.")
        case PreconditionError():
            return ChangedError(f"{start}it changed since it was listed. Run again once nobody writes there.")
    if told_by_system := _told_by_system(start, text, uri):
        return told_by_system
    status = int(_first(r"status code: (\d{3})", text) or 0)
    if isinstance(error, PermissionDeniedError) or status in (401, 403):
        return StoreError(f"{start}no permission ({code or status}). Check the policy of these credentials.")
    if status in (429, 500, 502, 503, 504) or (not status and _AWAY.search(text)):
        return _away(start, str(status) if status else _cause(text, source))
    return StoreError(f"{start}{_one_line(text)}")


def _away(start: str, why: str) -> StoreAwayError:
    return StoreAwayError(f"{start}storage doesn't answer ({why}). Try again later.")


def _told_of_tls(source: str) -> str | None:
    """Why a TLS connection can't be: waiting would not help."""
    if kind := re.search(r"InvalidCertificate\(\s*(?:Other\(\s*OtherError\(\s*)?(\w+)", source):
        return (
            f"the server's certificate is not trusted ({kind.group(1)}). Name the CA that signed it in AWS_CA_BUNDLE, "
            "a file in PEM form; a certificate that signed itself must not be marked as a CA's."
        )
    if "InvalidMessage(" in source:
        return "the server doesn't speak TLS. Check http:// or https:// in AWS_ENDPOINT_URL."
    return None


def _told_by_system(start: str, text: str, uri: str) -> StoreError | None:
    """What the operating system refused, with the folder below that it was about."""
    number = int(_first(r"(?:os error |Errno )(\d+)", text) or 0)
    where = _first(r"operation on (.+?): ", text)
    about = f"{where}: " if where and where != uri else ""
    if number in _REFUSED:
        return StoreRefusedError(f"{start}{about}{_REFUSED[number]}.")
    return StoreError(f"{start}{about}{_SYSTEM[number]}.") if number in _SYSTEM else None


def _cause(text: str, source: str) -> str:
    """Why there is no connection: the deepest cause that is told in words, else the line."""
    return _first(r'(?:message|error): "([^"]+)"', source) or _one_line(text)


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found.group(1) if found else None


def _one_line(text: str) -> str:
    """At most 200 characters, without the server's XML, and with nothing that opens a door."""
    line = without_secrets(" ".join(re.split(r"<[?!\w]", text, maxsplit=1)[0].split()))
    line = "".join(c if c.isprintable() else "?" for c in line.partition("  - ")[2] or line)  # names of others' objects
    return line if len(line) <= 200 else line[:197] + "..."


def without_secrets(text: str) -> str:
    """A text without the queries and user names of URLs, access keys and signatures: presigned URLs hold them all."""
    text = re.sub(r"(https?://[^\s?]+)\?\S*", r"\1", text)
    text = re.sub(r"(\w+://)\S*@", r"\1", text)  # a secret may hold slashes
    text = re.sub(r"(?i)\b(credential|signature|sig|x-amz-[\w-]+|token|password)=[^\s,&]+", r"\1=...", text)
    return re.sub(r"\b[A-Z]{4}[A-Z0-9]{12,}\b", "...", text)
