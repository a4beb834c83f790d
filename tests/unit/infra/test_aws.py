"""The IAM policy on a real S3 server with users: enough for a job, and for nothing else; the lifecycle rules."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from conftest import Bucket
from inprocess import run
from making import job
from storing import tar

from pipeline import store
from pipeline.errors import NotReadyError
from pipeline.store import open_store
from pipeline.verify import verify

AWS = Path(__file__).parents[3] / "infra/aws"


def filled(name: str, bucket: str) -> Any:
    text = (AWS / name).read_text()
    places = {
        "INPUT_BUCKET": bucket,
        "INPUT_PREFIX": "incoming/night",
        "OUTPUT_BUCKET": bucket,
        "OUTPUT_PREFIX": "purified/night",
    }
    for place, value in places.items():
        text = text.replace(place, value)
    return json.loads(text)


@pytest.fixture
def user(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A boto3 client of a user with the policy alone; the environment is that user's as well."""
    iam = boto3.client("iam", endpoint_url=s3.environment["AWS_ENDPOINT_URL"])
    name = f"job-{s3.name}"
    iam.create_user(UserName=name)
    policy = iam.create_policy(PolicyName=name, PolicyDocument=json.dumps(filled("job-policy.json", s3.name)))
    iam.attach_user_policy(UserName=name, PolicyArn=policy["Policy"]["Arn"])
    keys = iam.create_access_key(UserName=name)["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["SecretAccessKey"])
    session = boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"])  # the default one remembers the owner's
    return session.client("s3", endpoint_url=s3.environment["AWS_ENDPOINT_URL"])


@pytest.mark.s3
def test_a_user_with_the_policy_alone_completes_a_job_replaces_it_and_verifies_it(
    s3: Bucket, user: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PART_MIB", 5)
    s3.client.put_object(Bucket=s3.name, Key="incoming/night/a.tar", Body=tar(6))
    places = {"input": f"{s3.uri}/incoming/night/", "output": f"{s3.uri}/purified/night"}
    places |= {"marker": "_SUCCESS", "latest": f"{s3.uri}/purified/night/latest.json"}
    with pytest.raises(NotReadyError):
        run(job(tmp_path, **places))
    s3.client.put_object(Bucket=s3.name, Key="incoming/night/_SUCCESS", Body=b"")
    for overwrite in (False, True):
        summary, _ = run(job(tmp_path, overwrite=overwrite, **places))
        assert (summary.exit_code, summary.committed) == (0, ["a.tar"])
    head = s3.client.head_object(Bucket=s3.name, Key="purified/night/shards/a.tar")
    assert head["ETag"].endswith('-2"')  # it went up in several parts
    assert s3.client.head_object(Bucket=s3.name, Key="purified/night/latest.json")
    assert verify(open_store(places["output"])).findings == []


def status(attempt: Callable[[], Any]) -> int:
    try:
        found: int = attempt()["ResponseMetadata"]["HTTPStatusCode"]
    except ClientError as error:
        found = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return found


def open_to_all(bucket: str) -> str:
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{bucket}/*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.mark.s3
def test_that_user_can_neither_change_the_input_nor_touch_anything_else(s3: Bucket, user: Any) -> None:
    name = s3.name
    for key in ("incoming/night/a.tar", "incoming/other/a.tar", "purified/other/a.tar"):
        s3.client.put_object(Bucket=name, Key=key, Body=b"x")
    refused: dict[str, Callable[[], Any]] = {
        "delete input": lambda: user.delete_object(Bucket=name, Key="incoming/night/a.tar"),
        "replace input": lambda: user.put_object(Bucket=name, Key="incoming/night/a.tar", Body=b"y"),
        "add input": lambda: user.put_object(Bucket=name, Key="incoming/night/b.tar", Body=b"y"),
        "upload input": lambda: user.create_multipart_upload(Bucket=name, Key="incoming/night/b.tar"),
        "read beside the input": lambda: user.get_object(Bucket=name, Key="incoming/other/a.tar"),
        "list beside the input": lambda: user.list_objects_v2(Bucket=name, Prefix="incoming/other/"),
        "read beside the output": lambda: user.get_object(Bucket=name, Key="purified/other/a.tar"),
        "write beside the output": lambda: user.put_object(Bucket=name, Key="purified/other/a.tar", Body=b"y"),
        "delete beside the output": lambda: user.delete_object(Bucket=name, Key="purified/other/a.tar"),
        "make a bucket": lambda: user.create_bucket(Bucket=f"{name}-more"),
        "open the bucket": lambda: user.put_bucket_policy(Bucket=name, Policy=open_to_all(name)),
    }
    answers = {what: status(attempt) for what, attempt in refused.items()}
    assert answers == dict.fromkeys(refused, 403)
    user.put_object(Bucket=name, Key="purified/night/x", Body=b"y")
    user.delete_object(Bucket=name, Key="purified/night/x")
    assert user.get_object(Bucket=name, Key="incoming/night/a.tar")["Body"].read() == b"x"


def test_the_lifecycle_rules_are_such_as_boto3_takes_and_meet_no_committed_object() -> None:
    rules = filled("lifecycle.json", "bucket")
    client = boto3.client("s3", region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s")
    wanted = {"Bucket": "bucket", "LifecycleConfiguration": rules}
    with Stubber(client) as stubber:
        stubber.add_response("put_bucket_lifecycle_configuration", {}, wanted)
        client.put_bucket_lifecycle_configuration(**wanted)
    expiring = [rule["Filter"]["Prefix"] for rule in rules["Rules"] if "Expiration" in rule]
    assert expiring == ["purified/night/_staging/"]
    aborting = [rule["Filter"]["Prefix"] for rule in rules["Rules"] if "AbortIncompleteMultipartUpload" in rule]
    assert aborting == ["purified/night/"]
