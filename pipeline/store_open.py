"""From a URI to obstore's store, with the credentials, region and endpoint that boto3 would take.

So profiles, SSO and roles work as people know them. The environment is read on the node that opens.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import botocore.session
from botocore.exceptions import BotoCoreError
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store, from_url

from pipeline.errors import ConfigError, StoreError
from pipeline.store_errors import told

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

REQUEST_S = 30.0
"""Seconds that one request may take, from connecting to the end of the answer's body."""

_CLOUDS = ("s3", "gs", "az")

CREDENTIALS_FOR = timedelta(minutes=10)
"""How long credentials are taken for good before boto3 is asked again, which renews those of a role when they have
10 minutes left. obstore's own half an hour would use them beyond their end."""


def normal_uri(uri: str) -> str:
    """The URI without doubled or trailing slashes; local ones as absolute paths.

    Raises:
        ConfigError: No such scheme, or no bucket.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return os.path.abspath(uri)  # noqa: PTH100 - resolve() follows links, and so changes what people named
    if scheme == "file":
        return os.path.abspath(unquote(urlsplit(uri).path))  # noqa: PTH100 - as above
    if scheme not in _CLOUDS:
        raise ConfigError(f"{uri}: expected a local path, file://, s3://, gs:// or az://, found {scheme}://.")
    if re.match(r"[^/]*(@|:.*@)", rest):  # a secret may hold slashes
        shown = f"{scheme}://...@{rest.rpartition('@')[2]}"
        raise ConfigError(f"{shown}: expected no key in a URI. Set AWS_PROFILE or the keys in the environment.")
    if not rest.strip("/") or rest.startswith("/"):
        raise ConfigError(f"{uri}: expected a bucket after {scheme}://, found none.")
    # s3://b//in lists the folder of s3://b/in, and its names would lose their first letter.
    return f"{scheme}://{'/'.join(filter(None, rest.split('/')))}"


def is_local(uri: str) -> bool:
    """Whether a URI, in the form that people write, names files of this machine."""
    return "://" not in normal_uri(uri)


def open_cloud(uri: str, *retry_s: float) -> tuple[list[Any], str]:
    """Obstore's stores of the bucket, and the path of the root in it.

    Args:
        uri: The root.
        retry_s: How long a request is tried again by obstore itself; one store for each such time.

    Raises:
        StoreError: No credentials.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, base = rest.partition("/")
    retries = [_retry(seconds) for seconds in retry_s]
    if scheme != "s3":
        options = _client_options(None, None)
        with told("open", uri):
            at = f"{scheme}://{bucket}"
            return [from_url(at, config=None, client_options=options, retry_config=retry) for retry in retries], base
    try:
        return _open_s3(bucket, uri, retries), base
    except BotoCoreError as error:
        raise StoreError(f"{uri}: can't open: {error}. Check AWS_PROFILE and the AWS config.") from None


def _retry(seconds: float) -> RetryConfig:
    return {
        "max_retries": 1000,  # the time is the limit
        "retry_timeout": timedelta(seconds=seconds),
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
    }


def _open_s3(bucket: str, uri: str, retries: Sequence[RetryConfig]) -> list[S3Store]:
    session = botocore.session.get_session()
    if session.get_credentials() is None:
        raise StoreError(
            f"{uri}: can't open: found no AWS credentials where boto3 looks (environment, profile, role). "
            "Set AWS_PROFILE or the keys."
        )
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    endpoint = named or session.get_scoped_config().get("endpoint_url")
    options = _client_options(endpoint, session.get_config_variable("ca_bundle"))
    credentials = Boto3CredentialProvider(session, ttl=CREDENTIALS_FOR)
    return [
        S3Store(
            bucket,
            config={"endpoint": endpoint} if endpoint else {},
            credential_provider=credentials,
            region=os.environ.get("AWS_REGION") or session.get_config_variable("region") or "us-east-1",
            client_options=options,
            retry_config=retry,
        )
        for retry in retries
    ]


def _client_options(endpoint: str | None, ca_bundle: str | None) -> ClientConfig:
    """TLS is always verified: against the system's roots (SSL_CERT_FILE), and the bundle that boto3 would take."""
    options: ClientConfig = {"timeout": timedelta(seconds=REQUEST_S)}
    if endpoint and endpoint.startswith("http://"):
        options["allow_http"] = True
    if ca_bundle:
        try:
            options["root_certificate"] = Path(ca_bundle).read_bytes()
        except OSError as error:
            raise StoreError(f"{ca_bundle}: can't read the CA bundle: {error.strerror}. Check AWS_CA_BUNDLE.") from None
    return options
