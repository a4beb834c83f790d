from __future__ import annotations

import pytest
from pytest_httpserver import HTTPServer
from sagemaker_server import ACCESS_KEY, ENDPOINT, REGION, SECRET_KEY, Runtime, refusal
from werkzeug import Response

from pipeline.black_box import identify
from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers import build
from pipeline.classifiers.patience import TryAgain
from pipeline.errors import ClassifierAwayError, ClassifierError, RequestFailedError

NUMBERS = {"request": {"instances": ["$image"]}, "result": "predictions", "input": {"dtype": "float32"}}
IMAGE = {"content": "image", "result": "predictions[0]"}
KINDS = [NUMBERS, IMAGE, {"content": "npy"}, {"content": "npy", "result": "predictions"}]


@pytest.fixture(autouse=True)
def _credentials(monkeypatch, tmp_path):
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def runtime(httpserver: HTTPServer) -> Runtime:
    return Runtime(httpserver)


def fields(runtime: Runtime, **more):
    return {"protocol": "sagemaker", "url": runtime.url, "model": ENDPOINT, "region": REGION, "attempts": 3} | more


@pytest.mark.parametrize("kind", KINDS)
def test_signed_requests_of_each_content_are_answered(ask, coloured, runtime, kind):
    images = coloured(2) if kind is IMAGE else coloured(2, 0, 1)
    answers = ask(images, **fields(runtime, **kind))
    assert answers.classes.tolist() == [2, 0, 1][: len(images)]
    assert answers.scores[0].tolist() == pytest.approx([0, 0, 200 / 255])
    (request,) = runtime.requests
    assert request.headers["Authorization"].startswith(f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/")


def test_a_variant_is_named_to_the_service(ask, coloured, runtime):
    ask(coloured(0), **fields(runtime, version="blue", content="npy"))
    assert runtime.requests[0].headers["X-Amzn-SageMaker-Target-Variant"] == "blue"


def test_a_wrong_secret_is_refused_and_neither_is_shown(ask, coloured, runtime, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "n0t-the-secret")
    with pytest.raises(ClassifierError, match=r"classifier 'signs' at .* refuses InvokeEndpoint: status 403") as caught:
        ask(coloured(0), **fields(runtime, content="npy"))
    assert "Check the AWS credentials" in str(caught.value)
    assert "n0t-the-secret" not in str(caught.value)
    assert len(runtime.requests) == 1


def test_a_secret_that_the_service_says_back_is_not_shown(ask, coloured, runtime):
    runtime.faults = [refusal("AccessDeniedException", 403, f"not allowed: {SECRET_KEY}")]
    with pytest.raises(ClassifierError, match=r"not allowed: \*\*\*"):
        ask(coloured(0), **fields(runtime, content="npy"))


@pytest.mark.parametrize(
    "fault",
    [
        refusal("ThrottlingException", 400, "Rate exceeded"),
        refusal("ServiceUnavailable", 503, "busy"),
        refusal("ModelNotReadyException", 429, "warming up"),
        refusal("ModelError", 424, "Received server error (0)", OriginalStatusCode=503, OriginalMessage="busy"),
        refusal("InternalDependencyException", 530, "later"),
    ],
)
def test_what_passes_is_asked_again_by_us_and_not_by_boto3(ask, coloured, runtime, fault):
    runtime.faults = [fault]
    assert ask(coloured(1), **fields(runtime, content="npy")).classes.tolist() == [1]
    assert len(runtime.requests) == 2


def test_a_model_that_breaks_down_each_time_may_do_so_because_of_the_image(ask, coloured, runtime):
    runtime.faults = [
        refusal("ModelError", 424, "Received server error", OriginalStatusCode=500, OriginalMessage="division by zero")
        for _ in range(3)
    ]
    with pytest.raises(RequestFailedError, match="the model's own status 500: division by zero"):
        ask(coloured(1), **fields(runtime, content="npy"))
    assert len(runtime.requests) == 3


def test_a_model_that_refuses_is_not_asked_again(ask, coloured, runtime):
    with pytest.raises(ClassifierError, match="ModelError, the model's own status 415: no text/plain") as caught:
        ask(coloured(1), **fields(runtime, content="npy", content_type="text/plain"))
    assert not isinstance(caught.value, ClassifierAwayError)
    assert len(runtime.requests) == 1


def test_a_service_that_wants_a_pause_gets_it(ask, coloured, runtime, monkeypatch):
    waits = []

    def note(error):
        waits.append(error.retry_after_s)
        return isinstance(error, TryAgain)

    monkeypatch.setattr("pipeline.classifiers.patience._pause", note)
    fault = refusal("ThrottlingException", 429, "Rate exceeded")
    fault.headers["Retry-After"] = "7"
    runtime.faults = [fault]
    ask(coloured(1), **fields(runtime, content="npy"))
    assert waits == [7.0]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"model": "other"}, "Endpoint other of account 123456789012 not found.* Correct classifier.model"),
        ({"url": "http://127.0.0.1:9"}, "no connection.*"),
    ],
)
def test_a_wrong_endpoint_is_named(ask, coloured, runtime, more, said):
    with pytest.raises(ClassifierError, match=said):
        ask(coloured(1), **fields(runtime, content="npy", **{"attempts": 1, **more}) | more)


def test_a_reply_that_is_no_array_is_refused_with_what_came(ask, coloured, runtime):
    runtime.faults = [Response(b"\x93NUMPY junk", 200, {"Content-Type": "application/x-npy"})]
    with pytest.raises(ClassifierError, match=r"\(sagemaker\): expected an array of numbers as .npy"):
        ask(coloured(1), **fields(runtime, content="npy"))


def test_a_region_and_credentials_are_asked_for_before_anything_is_sent(ask, coloured, runtime, monkeypatch):
    with pytest.raises(ClassifierError, match=r"expected an AWS region, found none. Set classifier.region"):
        ask(coloured(1), **fields(runtime, content="npy", region=None))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ClassifierError, match="expected AWS credentials where boto3 looks for them"):
        ask(coloured(1), **fields(runtime, content="npy"))
    assert runtime.requests == []


def test_what_it_has_no_use_for_is_refused():
    for more in ({"token": "t"}, {"headers": {"a": "b"}}, {"content": "multipart"}):
        with pytest.raises(ValueError, match="protocol sagemaker has AWS credentials"):
            ClassifierConfig(protocol="sagemaker", model="m", **{"content": "npy", **more})
    with pytest.raises(ValueError, match="protocol sagemaker needs `model`"):
        ClassifierConfig(protocol="sagemaker", content="npy")
    with pytest.raises(ClassifierError, match=r"classifier.url: expected http"):
        build(ClassifierConfig(protocol="sagemaker", model="m", content="npy", url="signs"))


def test_region_and_variant_decide_whose_the_answers_are():
    base = {"protocol": "sagemaker", "model": "m", "content": "npy"}
    others = [{}, {"region": "eu-west-1"}, {"version": "blue"}, {"content": "image"}, {"url": "http://127.0.0.1:9"}]
    assert len({identify(ClassifierConfig(**{**base, **other})).name for other in others}) == len(others)
