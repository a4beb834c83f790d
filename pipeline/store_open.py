"""From a URI to obstore's store, with the credentials, region and endpoint that boto3 would take.

So profiles, SSO and roles work as people know them. The environment is read on the node that opens.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import botocore.session
from botocore.exceptions import BotoCoreError
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store, from_url

from pipeline.errors import ConfigError, StoreError
from pipeline.store_errors import told

if TYPE_CHECKING:
    from obstore.store import RetryConfig

_CLOUDS = ("s3", "gs", "az")


def normal_uri(uri: str) -> str:
    """The URI without trailing slash; local ones as absolute paths.

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
    if not rest.strip("/") or rest.startswith("/"):
        raise ConfigError(f"{uri}: expected a bucket after {scheme}://, found none.")
    return uri.rstrip("/")


def is_local(uri: str) -> bool:
    """Whether a URI, in the form that people write, names files of this machine."""
    return "://" not in normal_uri(uri)


def open_cloud(uri: str, patience_s: float) -> tuple[Any, str]:
    """Obstore's store of the bucket, and the path of the root in it.

    Raises:
        StoreError: No credentials.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, base = rest.partition("/")
    retry: RetryConfig = {
        "max_retries": 1000,  # the time is the limit
        "retry_timeout": timedelta(seconds=patience_s),
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
    }
    if scheme != "s3":
        with told("open", uri):
            return from_url(f"{scheme}://{bucket}", config=None, retry_config=retry), base
    try:
        return _open_s3(bucket, uri, retry), base
    except BotoCoreError as error:
        raise StoreError(f"{uri}: can't open: {error}. Check AWS_PROFILE and the AWS config.") from None


def _open_s3(bucket: str, uri: str, retry: RetryConfig) -> S3Store:
    session = botocore.session.get_session()
    if session.get_credentials() is None:
        raise StoreError(
            f"{uri}: can't open: found no AWS credentials where boto3 looks (environment, profile, role). "
            "Set AWS_PROFILE or the keys."
        )
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    endpoint = named or session.get_scoped_config().get("endpoint_url")
    return S3Store(
        bucket,
        config={"endpoint": endpoint} if endpoint else {},
        credential_provider=Boto3CredentialProvider(session),
        region=os.environ.get("AWS_REGION") or session.get_config_variable("region") or "us-east-1",
        client_options={"allow_http": bool(endpoint and endpoint.startswith("http://"))},
        retry_config=retry,
    )
