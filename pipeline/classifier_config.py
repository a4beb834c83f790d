"""A black box's settings: where it is, which protocol it speaks, what it takes, how much it may be asked.

Secrets come from the environment, and names of classes from a file, when the settings are read: a worker has neither.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from pipeline.model import Model
from pipeline.protocols import PROTOCOLS
from zipstage.errors import nearest


class InputConfig(Model):
    """What the classifier's network takes, and how an image becomes that."""

    name: str | None = Field(None, description="of the input; none: as discovered, else input-0")
    size: int | tuple[int, int] | None = Field(
        None, description="side in px, or (height, width); none: as discovered, else as received"
    )
    resize: Literal["bilinear", "bicubic", "nearest", "area"] = Field(
        "bilinear", description="how an image of another size becomes that"
    )
    crop: Literal["none", "center"] = Field("none", description="center: shrink the short side, then cut the middle")
    layout: Literal["NCHW", "NHWC"] | None = Field(None, description="none: as discovered, else NCHW")
    dtype: Literal["float32", "uint8", "bytes"] | None = Field(
        None, description="none: as discovered, else float32; bytes sends encoded images"
    )
    mean: tuple[float, ...] = Field((0.0,), description="taken off pixels in 0 to 1; one number, or R, G and B")
    std: tuple[float, ...] = Field((1.0,), description="what they are divided by then; one number, or R, G and B")

    @field_validator("mean", "std")
    @classmethod
    def _one_or_three(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(value) not in (1, 3):
            raise ValueError(f"expected 1 or 3 numbers (for all channels, or R, G, B), found {len(value)}")
        return value

    @field_validator("std")
    @classmethod
    def _not_zero(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(v > 0 for v in value):
            raise ValueError(f"expected numbers above 0, found {list(value)}")
        return value


class ClassifierConfig(Model):
    """A black box: where it is, which protocol it speaks, what it takes."""

    protocol: str = Field(description=f"one of {', '.join(PROTOCOLS)}")
    url: str | None = Field(
        None,
        description="open-inference-v2: http(s)://host:port; json-http: all of it; sagemaker: where it isn't AWS's",
    )
    path: str | None = Field(None, description="onnx, torch-export: the file")
    model: str | None = Field(
        None, description="the model's name on the server; sagemaker: the endpoint's; json-http: as it is to be called"
    )
    version: str | None = Field(None, description="open-inference-v2: the model's version; sagemaker: the variant")
    region: str | None = Field(None, description="sagemaker: the AWS region; none: where boto3 finds it")
    content: Literal["json", "multipart", "image", "npy"] | None = Field(
        None, description="json-http, sagemaker: what a request is; none: json; image: one encoded image; npy: numbers"
    )
    content_type: str | None = Field(None, description="json-http, sagemaker: Content-Type; none: that of the content")
    request: dict[str, Any] | None = Field(
        None,
        description="json-http, sagemaker: the request, $image where the image stands; a list's element that holds it "
        "is repeated for each image of a batch",
    )
    result: str | None = Field(
        None, description="json-http, sagemaker: where the answers stand in the reply, as JMESPath; none: all of it"
    )
    headers: dict[str, SecretStr] = Field(
        {}, description="sent along and kept secret; $NAME takes an environment variable"
    )
    name: str | None = Field(None, description="folder of its predictions; else made of model and settings")
    input: InputConfig = InputConfig()
    output: str | None = Field(None, description="name of the output that holds scores; none: the only or first one")
    labels: tuple[str, ...] | None = Field(
        None, description="names of the classes, or a file with a name a line; for outputs that hold names"
    )
    binary: bool = Field(True, description="open-inference-v2: tensors as binary data, else JSON")
    batch: int = Field(64, ge=1, description="images in a request")
    concurrency: int = Field(4, ge=1, description="requests under way at once, over the whole job")
    timeout_s: float = Field(30.0, gt=0, description="deadline of one request")
    attempts: int = Field(4, ge=1, description="tries of one request, with growing, jittered waits")
    rate_per_s: float | None = Field(None, gt=0, description="requests a second at most, over the whole job")
    max_queries: int | None = Field(
        None, ge=1, description="images sent in a run at most, before and after both; a rerun goes on"
    )
    price_per_1000: float | None = Field(None, ge=0, description="what 1,000 images cost, for `zipstage plan`")
    token: SecretStr | None = Field(None, description="bearer token of an endpoint; best set by the environment")

    @field_validator("protocol")
    @classmethod
    def _is_spoken(cls, value: str) -> str:
        if value not in PROTOCOLS:
            raise ValueError(f"no protocol {value!r}.{nearest(value, PROTOCOLS)} There are: {', '.join(PROTOCOLS)}")
        return value

    @property
    def title(self) -> str:
        """What people know it by, for messages."""
        return self.model or self.path or self.url or self.protocol

    @field_validator("headers", mode="before")
    @classmethod
    def _from_variables(cls, value: Any) -> Any:  # noqa: ANN401 - what a YAML file holds
        if not isinstance(value, dict):
            return value
        return {name: _variable(str(name), text) for name, text in value.items()}

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in value.items():
            if not re.fullmatch(r"[A-Za-z0-9-]+", name) or not re.fullmatch(r"[ -~]*", secret.get_secret_value()):
                raise ValueError(f"expected a header's name and visible ASCII characters, found others for {name!r}")
        return value

    @field_validator("labels", mode="before")
    @classmethod
    def _read_labels(cls, value: Any) -> Any:  # noqa: ANN401 - what a YAML file holds
        return _read_lines(Path(value)) if isinstance(value, str) else value  # here: a worker has no such file

    @field_validator("labels")
    @classmethod
    def _some_labels(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (len(value) < 2 or "" in value):
            raise ValueError(f"expected 2 names or more, none of them empty, found {len(value)}, or an empty one")
        return value

    @field_validator("name")
    @classmethod
    def _is_a_folder(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", value):
            raise ValueError(
                f"expected letters, digits, '_', '.' and '-', beginning with none of the last two, since its "
                f"predictions lie in a folder of that name, found {value!r}"
            )
        return value

    @model_validator(mode="after")
    def _complete(self) -> ClassifierConfig:
        protocol = PROTOCOLS[self.protocol]
        for field in protocol.needs:
            if not getattr(self, field):
                raise ValueError(f"protocol {self.protocol} needs `{field}`")
        for field in _DECIDING:
            if getattr(self, field) is not None and not protocol.has(field):
                hint = "; `result` says where the answers stand" if field == "output" and protocol.has("result") else ""
                raise ValueError(f"protocol {self.protocol} has no `{field}`{hint}")
        if self.protocol == "sagemaker" and (self.content == "multipart" or self.token or self.headers):
            raise ValueError(
                "protocol sagemaker has AWS credentials instead of `token` and `headers`, and no multipart"
            )
        takes_request = protocol.has("request") and (self.content or "json") in ("json", "multipart")
        if takes_request and self.request is None:
            raise ValueError(f"protocol {self.protocol} needs `request`, with $image where the image stands")
        return self


_DECIDING = ("region", "content", "content_type", "request", "result", "output")
"""What decides answers, and is refused where a protocol has no use for it."""


def _variable(name: str, text: Any) -> Any:  # noqa: ANN401 - what a YAML file holds
    """A header's value; `$NAME` is that of an environment variable, so that no file holds it."""
    if not (isinstance(text, str) and text.startswith("$")):
        return text
    if (value := os.environ.get(text[1:])) is None:
        raise ValueError(f"expected the environment variable {text[1:]} for the header {name!r}, it isn't set")
    return value


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ValueError(f"expected a list of names or a file, {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"expected {path} in UTF-8, found other bytes") from None
