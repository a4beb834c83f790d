"""A SageMaker runtime on this machine: one endpoint, its contract and its signatures.

Signatures are computed anew by botocore's own signer, out of what came and of a secret that the
server knows by itself. The network behind it answers with the mean of each channel.
"""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from pytest_httpserver import HTTPServer
from scripted_json import pixels
from werkzeug import Request, Response

ACCESS_KEY, SECRET_KEY, REGION, ENDPOINT = (
    "AKIDEXAMPLE",
    "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "eu-west-1",
    "signs",
)


def is_signed(request: Request, secret: str = SECRET_KEY) -> bool:
    """Whether a request carries the signature that the secret makes of it."""
    kind, _, rest = request.headers.get("Authorization", "").partition(" ")
    given = dict(part.strip().split("=", 1) for part in rest.split(","))
    key, date, region, service, end = given["Credential"].split("/")
    if (kind, key, region, service, end) != ("AWS4-HMAC-SHA256", ACCESS_KEY, REGION, "sagemaker", "aws4_request"):
        return False
    signed = {name: request.headers[name] for name in given["SignedHeaders"].split(";")}
    assert signed["x-amz-date"].startswith(date)
    again = AWSRequest(request.method, request.url, headers=signed, data=request.get_data())
    again.context["timestamp"] = signed["x-amz-date"]
    signer = SigV4Auth(Credentials(ACCESS_KEY, secret), service, region)
    expected = signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)
    return bool(expected == given["Signature"])


def refusal(code: str, status: int, message: str, **more: Any) -> Response:
    """An error as the service gives it."""
    text = json.dumps({"message": message, "Message": message, **more})
    return Response(text, status, {"x-amzn-ErrorType": code, "Content-Type": "application/json"})


class Runtime:
    """The service, on a server of pytest's.

    Args:
        server: Where it listens.
    """

    def __init__(self, server: HTTPServer) -> None:
        self.url = server.url_for("")
        self.requests: list[Request] = []
        self.faults: list[Response] = []  # each is given once, before any answer
        server.expect_request(f"/endpoints/{ENDPOINT}/invocations", method="POST").respond_with_handler(self._invoke)
        server.expect_request("/endpoints/other/invocations").respond_with_response(
            refusal("ValidationError", 400, "Endpoint other of account 123456789012 not found.")
        )

    def _invoke(self, request: Request) -> Response:
        body = request.get_data()
        self.requests.append(request)
        if not is_signed(request):
            said = f"The request signature we calculated does not match. {SECRET_KEY}"  # a server that is too open
            return refusal("InvalidSignatureException", 403, said)
        if self.faults:
            return self.faults.pop(0)
        match request.content_type:
            case "application/x-npy":
                means = np.load(io.BytesIO(body), allow_pickle=False).mean(axis=(2, 3))
                if "npy" in request.headers["Accept"]:
                    file = io.BytesIO()
                    np.save(file, means)
                    return Response(file.getvalue(), 200, {"Content-Type": "application/x-npy"})
                return self._json(means)
            case "image/png":
                return self._json([pixels(body).mean(axis=(0, 1)) / 255])
            case "application/json":
                batch = np.array(json.loads(body)["instances"])
                return self._json(batch.mean(axis=(2, 3)))
            case other:
                return refusal("ModelError", 424, "Unsupported", OriginalStatusCode=415, OriginalMessage=f"no {other}")

    def _json(self, scores: Any) -> Response:
        return Response(
            json.dumps({"predictions": np.asarray(scores).tolist()}), 200, {"Content-Type": "application/json"}
        )
