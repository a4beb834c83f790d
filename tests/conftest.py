"""What tests of several folders share: a real S3 server, started when the first test asks for it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

SCRIPTS = Path(__file__).parent / "s3"


@dataclass(frozen=True)
class Bucket:
    """A fresh bucket on the real server.

    Args:
        name: The bucket's name.
        environment: AWS_* variables that reach the server; set already in the test's own process.
        client: A boto3 client, as the second opinion on what is there.
    """

    name: str
    environment: dict[str, str]
    client: Any

    @property
    def uri(self) -> str:
        return f"s3://{self.name}"


@pytest.fixture(scope="session")
def s3_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Starts the server of `tests/s3` on 127.0.0.1 and ends it, by its own pid, after the last test."""
    folder = tmp_path_factory.mktemp("s3") / "server"
    start = subprocess.run(
        [SCRIPTS / "start.sh"],
        env={**os.environ, "S3_DIR": str(folder), "S3_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    if start.returncode:
        raise RuntimeError(start.stderr.strip())
    exports = (shlex.split(line)[1].partition("=") for line in start.stdout.splitlines())
    try:
        yield {name: value for name, _, value in exports if name.startswith("AWS_")}
    finally:
        subprocess.run([SCRIPTS / "stop.sh", "--wipe", str(folder)], check=True)


@pytest.fixture(scope="session")
def s3_client(s3_environment: dict[str, str]) -> Any:
    """A boto3 client of the server's owner."""
    session = boto3.Session(
        s3_environment["AWS_ACCESS_KEY_ID"], s3_environment["AWS_SECRET_ACCESS_KEY"], None, s3_environment["AWS_REGION"]
    )
    return session.client("s3", endpoint_url=s3_environment["AWS_ENDPOINT_URL"])


@pytest.fixture
def s3(s3_environment: dict[str, str], s3_client: Any, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket of the test's own; the environment is set for the test's duration."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    name = f"test-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=name)
    return Bucket(name, dict(s3_environment), s3_client)
