"""Classifiers behind a SageMaker endpoint, asked through boto3, with the credentials that it finds.

boto3 blocks, so requests run in threads of their own. A trap: its own retries know nothing of the
job's rate and cap, so they are off, and ours are made instead.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import boto3
import numpy as np
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    HTTPClientError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from botocore.exceptions import ConnectionError as NoConnectionError

from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers.base import Answers, Understood
from pipeline.classifiers.bodies import Body, BodyMaker
from pipeline.classifiers.gate import Gate
from pipeline.classifiers.http import MAX_REPLY_BYTES
from pipeline.classifiers.json_http import told
from pipeline.classifiers.patience import RETRIED, Patience, TryAgain, retry_after_s
from pipeline.classifiers.quoting import quoted
from pipeline.classifiers.results import NPY, ResultReader
from pipeline.errors import ClassifierAwayError, ClassifierError, RequestFailedError

_THROTTLED = frozenset({"ThrottlingException", "ServiceUnavailable", "ModelNotReadyException"})
_HINTS = {
    400: " Correct classifier.model, version or region, or lower classifier.batch.",
    403: " Check the AWS credentials, and that they may sagemaker:InvokeEndpoint.",
    404: " Correct classifier.url, model or region.",
    413: " Lower classifier.batch.",
}
_CHUNK_BYTES = 1 << 16


class SageMaker:
    """One endpoint of SageMaker.

    Args:
        config: Which one, what is sent, and where the answers stand.
        gate: What each request goes through first.

    Raises:
        ClassifierError: The URL, the template or the path can't be used.
    """

    def __init__(self, config: ClassifierConfig, gate: Gate) -> None:
        self._config = config
        at = f" at {config.url.rstrip('/')}" if config.url else ""
        self._where = f"classifier {config.model!r}{at} (sagemaker)"
        self._check_url()
        self._body = BodyMaker(config, self._where)
        self._read = ResultReader(config, self._where, self._body.is_single, self._quote)
        self._patience = Patience(config, self._where, gate)
        self._client: Any = None  # boto3 makes its classes as it runs
        self._secrets: tuple[str, ...] = ()
        self.max_batch = self._body.max_batch

    async def __aenter__(self) -> Self:
        self._client = await asyncio.to_thread(self._connect)
        self._threads = ThreadPoolExecutor(self._config.concurrency, thread_name_prefix="sagemaker")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def understood(self) -> Understood:
        lines = {"endpoint": str(self._config.model), **told(self._body, self._read)}
        return Understood(lines, self._config.labels)

    async def predict(self, images: np.ndarray) -> Answers:
        """Ask about uint8 [n, h, w, 3], n at most `max_batch`.

        Raises:
            ClassifierAwayError: No answer within the deadline and the attempts.
            ClassifierError: The endpoint refuses the request, or what it answers is no answer.
        """
        body = await asyncio.to_thread(self._body, images)
        loop = asyncio.get_running_loop()

        async def attempt() -> tuple[bytes, str]:
            return await loop.run_in_executor(self._threads, self._invoke, body)

        data, content_type = await self._patience.send(attempt, "InvokeEndpoint", len(images))
        return self._read(data, content_type, len(images))

    def _check_url(self) -> None:
        parts = urlsplit(self._config.url or "https://aws")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise ClassifierError("classifier.url: expected http(s)://host:port, found something else.")
        self._is_local = parts.hostname in ("127.0.0.1", "localhost", "::1")

    def _connect(self) -> Any:  # noqa: ANN401 - boto3 makes its classes as it runs
        config = self._config
        try:
            session = boto3.Session(region_name=config.region)
            if session.region_name is None:
                raise ClassifierError(f"{self._where}: expected an AWS region, found none. Set classifier.region.")
            credentials = session.get_credentials()
            if credentials is None:
                raise ClassifierError(
                    f"{self._where}: expected AWS credentials where boto3 looks for them (variables, profile, role), "
                    "found none."
                )
            frozen = credentials.get_frozen_credentials()
            self._secrets = tuple(text for text in (frozen.token, frozen.secret_key, frozen.access_key) if text)
            settings: dict[str, Any] = {"proxies": {}} if self._is_local else {}
            return session.client(
                "sagemaker-runtime",
                endpoint_url=config.url,
                config=Config(
                    connect_timeout=config.timeout_s,
                    read_timeout=config.timeout_s,
                    retries={"total_max_attempts": 1},
                    max_pool_connections=config.concurrency,
                    **settings,
                ),
            )
        except BotoCoreError as error:
            raise ClassifierError(f"{self._where}: {self._quote(str(error))}") from None

    def _invoke(self, body: Body) -> tuple[bytes, str]:
        """One attempt: the reply's bytes and Content-Type."""
        variant = {"TargetVariant": self._config.version} if self._config.version else {}
        accepted = NPY if self._body.content == "npy" and self._config.result is None else "application/json"
        ends_at = time.monotonic() + self._config.timeout_s
        try:
            reply = self._client.invoke_endpoint(
                EndpointName=self._config.model,
                Body=body.data,
                ContentType=body.content_type,
                Accept=accepted,
                **variant,
            )
            return self._whole(reply["Body"], ends_at), reply.get("ContentType", "")
        except ClientError as error:
            raise self._understood(error) from None
        except (ReadTimeoutError, ConnectTimeoutError):
            raise TryAgain(f"nothing within {self._config.timeout_s:g} s") from None
        except SSLError as error:
            reason = self._quote(str(error))
            raise ClassifierError(
                f"{self._where}: expected a certificate that can be trusted, found: {reason}. "
                "Name a file with its CA in AWS_CA_BUNDLE."
            ) from None
        except (ResponseStreamingError, ConnectionClosedError) as error:
            raise TryAgain(f"no whole reply: {self._quote(str(error))}", error=RequestFailedError) from None
        except (HTTPClientError, NoConnectionError) as error:
            raise TryAgain(f"no connection: {self._quote(str(error))}") from None
        except BotoCoreError as error:
            raise ClassifierError(f"{self._where}: {self._quote(str(error))}") from None

    def _whole(self, stream: Any, ends_at: float) -> bytes:  # noqa: ANN401 - a body of botocore's
        """All of a reply; one that comes byte by byte ends with the deadline, else its thread would go on."""
        chunks, size_bytes = [], 0
        with stream:
            for chunk in stream.iter_chunks(_CHUNK_BYTES):
                chunks.append(chunk)
                size_bytes += len(chunk)
                if size_bytes > MAX_REPLY_BYTES:
                    raise ClassifierError(
                        f"{self._where}: expected a reply of at most {MAX_REPLY_BYTES} bytes, found more. "
                        "Lower classifier.batch."
                    )
                if time.monotonic() > ends_at:
                    raise TryAgain(f"no whole reply within {self._config.timeout_s:g} s")
        return b"".join(chunks)

    def _understood(self, error: ClientError) -> Exception:
        """What an error of the service, or of the model behind it, means for the next attempt."""
        response: dict[str, Any] = dict(error.response)
        meta, said = response.get("ResponseMetadata", {}), response.get("Error", {})
        code, status = str(said.get("Code", "")), int(meta.get("HTTPStatusCode", 0))
        text = self._quote(str(response.get("OriginalMessage") or said.get("Message") or "no word"))
        if code == "ModelError":
            status = int(response.get("OriginalStatusCode") or HTTPStatus.INTERNAL_SERVER_ERROR)
            found = f"ModelError, the model's own status {status}: {text}"
        else:
            found = f"status {status}, {self._quote(code)}: {text}"
        if status in RETRIED or status > HTTPStatus.INTERNAL_SERVER_ERROR or code in _THROTTLED:
            is_broken = status == HTTPStatus.INTERNAL_SERVER_ERROR
            wait_s = retry_after_s(meta.get("HTTPHeaders", {}).get("retry-after"))
            return TryAgain(found, wait_s, RequestFailedError if is_broken else ClassifierAwayError)
        return ClassifierError(f"{self._where}: refuses InvokeEndpoint: {found}.{_HINTS.get(status, '')}")

    def _quote(self, text: str) -> str:
        return quoted(text, self._secrets)
