"""What storage says, told to people: obstore's exceptions become those of `pipeline.errors`, one line each.

obstore has few classes; most failures are one `GenericError` whose text holds an HTTP status, S3's
XML error code or the system's error number, so these are looked for in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from pipeline.errors import ChangedError, ExistsError, NotFoundError, StoreAwayError, StoreError

_CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
_SYSTEM = {
    28: "the disk is full; free some space and run again",
    122: "the disk quota is used up; free some space and run again",
    30: "the file system is read-only; name a place that can be written",
    13: "no permission; check the owner and mode of the folder",
    1: "no permission; check the owner and mode of the folder",
    20: "a part of the path is a file, not a folder",
    21: "it is a folder, not a file",
    36: "the name is too long for this file system",
}
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
        NotFoundError, ExistsError, ChangedError, StoreAwayError, StoreError: By what storage said.
    """
    try:
        yield
    except (BaseError, OSError, ValueError) as error:  # obstore raises the last two for "not found" and for bad paths
        raise tell(error, action, uri) from None


def tell(error: Exception, action: str, uri: str) -> StoreError:
    """The error of `pipeline.errors` that says what an exception of obstore means."""
    text = str(error).partition("\n\nDebug source:")[0]
    start = f"{uri}: can't {action}: "
    code = _first(r"<Code>(\w+)</Code>", text)
    if code == "NoSuchBucket":
        return StoreError(f"{start}there is no such bucket. Check the URI and AWS_ENDPOINT_URL.")
    if code in _CREDENTIALS or isinstance(error, UnauthenticatedError):
        return StoreError(
            f"{start}the credentials were refused ({code or _one_line(text)}). Check AWS_PROFILE or the keys."
        )
    match error:
        case FileNotFoundError():
            return NotFoundError(f"{start}there is no such object.")
        case AlreadyExistsError():
            return ExistsError(f"{start}it is there already.")
        case PreconditionError():
            return ChangedError(f"{start}it changed since it was listed. Run again once nobody writes there.")
    number = _first(r"(?:os error |Errno )(\d+)", text)
    if number and int(number) in _SYSTEM:
        return StoreError(f"{start}{_SYSTEM[int(number)]}.")
    status = int(_first(r"status code: (\d{3})", text) or 0)
    if isinstance(error, PermissionDeniedError) or status in (401, 403):
        return StoreError(f"{start}no permission ({code or status}). Check the policy of these credentials.")
    if status in (429, 500, 502, 503, 504) or (not status and _AWAY.search(text)):
        return StoreAwayError(f"{start}storage doesn't answer ({_one_line(text)}). Try again later.")
    return StoreError(f"{start}{_one_line(text)}")


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found.group(1) if found else None


def _one_line(text: str) -> str:
    """At most 200 characters, without what repeats the URI or the server's XML."""
    line = " ".join(text.partition("<?xml")[0].split())
    return line if len(line) <= 200 else line[:197] + "..."
