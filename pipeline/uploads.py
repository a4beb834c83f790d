"""Uploads to S3 that were begun and never completed: a killed writer's bytes, which no listing of objects shows.

obstore knows no such listing, so this asks botocore, with the same credentials, region and endpoint.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import botocore.session
from botocore.exceptions import BotoCoreError, ClientError

from pipeline.errors import StoreError


@dataclass(frozen=True, slots=True)
class Upload:
    """An unfinished upload; its bytes are paid for, and nobody tells how many they are."""

    bucket: str
    key: str
    upload_id: str


def list_unfinished(uri: str) -> tuple[Upload, ...] | None:
    """Those below a root; None where the storage, or the policy of the credentials, doesn't list them."""
    scheme, _, rest = uri.partition("://")
    if scheme != "s3":
        return None
    bucket, _, base = rest.partition("/")
    below = f"{base}/" if base else ""
    try:
        pages = _client().get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=below)
        found = [Upload(bucket, item["Key"], item["UploadId"]) for page in pages for item in page.get("Uploads", ())]
    except (BotoCoreError, ClientError):
        return None
    return tuple(upload for upload in found if upload.key.startswith(below))


def abort(upload: Upload) -> None:
    """Drop what was uploaded.

    Raises:
        StoreError: The storage said no; one that is gone already is fine.
    """
    try:
        _client().abort_multipart_upload(Bucket=upload.bucket, Key=upload.key, UploadId=upload.upload_id)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code != "NoSuchUpload":
            uri = f"s3://{upload.bucket}/{upload.key}"
            raise StoreError(f"{uri}: can't abort its upload: {code}. Check the policy of these credentials.") from None
    except BotoCoreError as error:
        raise StoreError(f"s3://{upload.bucket}/{upload.key}: can't abort its upload: {error}") from None


def _client() -> Any:  # noqa: ANN401 - botocore makes its clients' classes as it goes
    session = botocore.session.get_session()
    region = os.environ.get("AWS_REGION") or session.get_config_variable("region") or "us-east-1"
    return session.create_client("s3", region_name=region)
