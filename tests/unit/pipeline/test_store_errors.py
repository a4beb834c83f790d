"""What storage says, as people read it: the cause by name, at once where waiting can't help, and no secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError
from certificates import self_signed, signed
from conftest import Bucket
from faulty_s3 import FaultyS3
from obstore.exceptions import GenericError, PermissionDeniedError
from pytest_httpserver import HTTPServer
from werkzeug import Response

from pipeline import store as store_module
from pipeline import store_open
from pipeline.errors import ConfigError, StoreAwayError, StoreError, StoreRefusedError
from pipeline.store import open_store
from pipeline.store_errors import tell

KEY, SECRET, TOKEN = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCY", "FwoGZXIvYXdzEBYaDH"
PRESIGNED = f"https://host/b/k?X-Amz-Credential={KEY}%2F20261121&X-Amz-Signature=0123abcd&X-Amz-Security-Token={TOKEN}"


@pytest.mark.parametrize(
    "text",
    [
        f"Generic S3 error: Error performing GET {PRESIGNED} in 1s - HTTP error: error sending request",
        f"Generic S3 error: error following redirect to {PRESIGNED}",
        "Generic S3 error: Server returned non-2xx status code: 418: "
        f"<Error><Code>Odd</Code><AWSAccessKeyId>{KEY}</AWSAccessKeyId><StringToSign>{SECRET}</StringToSign></Error>",
        f"Generic S3 error: proxy http://user:{SECRET}@proxy:3128 refused",
        f"Generic S3 error: header 'Credential={KEY}/x, Signature=0123abcd' is wrong",
        f"Generic error: container?sv=1&sig={SECRET}",
    ],
)
@pytest.mark.parametrize("kind", [GenericError, PermissionDeniedError])
def test_no_key_and_no_signature_comes_through(text: str, kind: type[Exception]) -> None:
    said = str(tell(kind(text), "read", "s3://b/k"))
    assert not [secret for secret in (KEY, SECRET, TOKEN, "0123abcd") if secret in said]
    assert "\n" not in said


def test_a_refusal_that_echoes_the_request_shows_no_secret(httpserver: HTTPServer, aws: None) -> None:
    echo = f"<Error><Code>Odd</Code><AWSAccessKeyId>{KEY}</AWSAccessKeyId><Signature>{SECRET}</Signature></Error>"
    httpserver.expect_request("/bucket/x/a").respond_with_response(Response(echo, status=418))
    with pytest.raises(StoreError, match=r"x/a: can't read: .*418") as raised:
        open_store("s3://bucket/x", patience_s=1).get("a")
    assert KEY not in str(raised.value)
    assert SECRET not in str(raised.value)


def test_a_key_in_a_uri_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match=r"s3://\.\.\.@bucket/x: expected no key in a URI") as raised:
        open_store(f"s3://{KEY}:{SECRET}@bucket/x")
    assert SECRET not in str(raised.value)


@pytest.fixture
def aws(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials for a server of the test's own."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    values = {"ENDPOINT_URL": httpserver.url_for(""), "ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "REGION": "r"}
    for name, value in {**values, "CONFIG_FILE": str(tmp_path / "none")}.items():
        monkeypatch.setenv(f"AWS_{name}", value)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("ExpiredToken", "the credentials were refused"),
        ("NoSuchBucket", "no such bucket"),
        ("RequestTimeTooSkewed", "this machine's clock is off"),
    ],
)
def test_what_no_waiting_helps_is_told_at_once_and_said_to_go_for_all(
    httpserver: HTTPServer, aws: None, code: str, says: str
) -> None:
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
    httpserver.expect_request("/bucket/x/a").respond_with_response(Response(body, status=400))
    with pytest.raises(StoreRefusedError, match=says):
        open_store("s3://bucket/x", patience_s=100).get("a")
    assert len(httpserver.log) == 1


def test_a_server_that_stays_away_is_told_with_the_cause(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreAwayError, match=r"can't list: storage doesn't answer \(Connection refused\)"):
        list(open_store("s3://bucket/x", patience_s=0.2).list())


def test_a_wait_leaves_no_words_of_a_library_on_the_terminal(aws: None) -> None:
    code = (
        "from pipeline.store import open_store\n"
        "try: open_store('s3://bucket/x', 0.3).delete_below('a')\n"
        "except Exception as error: print(type(error).__name__)"
    )
    environment = {**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("StoreAwayError\n", "")


def test_fresh_credentials_that_cannot_be_had_are_told_in_one_line(
    httpserver: HTTPServer, aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = tmp_path / "once.py"
    given = {
        "Version": 1,
        "AccessKeyId": "k",
        "SecretAccessKey": SECRET,
        "SessionToken": TOKEN,
        "Expiration": "2026-01-01T00:00:00Z",
    }
    once.write_text(
        f"import json, pathlib, sys\nseen = pathlib.Path({str(tmp_path / 'seen')!r})\n"
        f"if seen.exists(): sys.exit('the login has ended')\nseen.touch(); print({json.dumps(given)!r})"
    )
    (tmp_path / "config").write_text(f"[profile p]\ncredential_process = {sys.executable} {once}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "p")
    with pytest.raises(StoreError) as raised:
        open_store("s3://bucket/x", patience_s=1).get("a")
    assert "\n" not in str(raised.value)
    assert "the login has ended" in str(raised.value)
    assert SECRET not in str(raised.value)


def test_credentials_are_asked_for_again_before_a_role_ends(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(store_open, "S3Store", lambda bucket, **options: made.append(options))
    store_open.open_cloud("s3://bucket/x", 1.0)
    good_for = made[0]["credential_provider"]()["expires_at"] - datetime.now(UTC)
    assert good_for <= timedelta(minutes=10)  # boto3 renews what has less; obstore takes a new one 5 minutes before


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="https://sts.amazonaws.com"),
        ReadTimeoutError(endpoint_url="https://sts.amazonaws.com"),
    ],
)
def test_a_service_for_credentials_that_does_not_answer_is_waited_for(error: Exception) -> None:
    assert type(tell(error, "read", "s3://b/k")) is StoreAwayError


# --- TLS --------------------------------------------------------------------------------------------


@pytest.mark.s3
def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(
    s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "FIRST_RETRY_S", 0.2)
    with FaultyS3(s3.environment["AWS_ENDPOINT_URL"], tls=self_signed(tmp_path)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        with pytest.raises(StoreRefusedError, match=r"certificate is not trusted .*AWS_CA_BUNDLE"):
            open_store(s3.uri, patience_s=100).put("a", b"1")
    assert server.asked == []


@pytest.mark.s3
def test_the_bundle_that_boto3_takes_makes_a_server_trusted(
    s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyS3(s3.environment["AWS_ENDPOINT_URL"], tls=signed(tmp_path)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        open_store(s3.uri, patience_s=1).put("a", b"1")
        assert open_store(s3.uri, patience_s=1).get("a") == b"1"


@pytest.mark.s3
def test_the_variable_of_openssl_does_so_as_well(s3: Bucket, tmp_path: Path) -> None:
    code = "import sys; from pipeline.store import open_store; print(list(open_store(sys.argv[1], 1).list()))"
    with FaultyS3(s3.environment["AWS_ENDPOINT_URL"], tls=signed(tmp_path)) as server:
        environment = {**os.environ, "AWS_ENDPOINT_URL": server.url, "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
        done = subprocess.run([sys.executable, "-c", code, s3.uri], env=environment, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_a_bundle_that_is_not_there_is_named(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(StoreError, match=r"/nowhere/ca\.pem: can't read the CA bundle: No such file.*AWS_CA_BUNDLE"):
        open_store("s3://bucket/x")


@pytest.mark.s3
def test_http_where_https_was_meant_is_told(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "FIRST_RETRY_S", 0.2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.environment["AWS_ENDPOINT_URL"].replace("http:", "https:"))
    with pytest.raises(StoreRefusedError, match="doesn't speak TLS"):
        open_store(s3.uri, patience_s=100).put("a", b"1")
