"""A job's settings: one set of models is the YAML, the flags and the environment.

Loads neither torch nor Ray, so that `--help` is fast. Unknown fields are errors that name the
nearest known one; contradictions are found here, before any work.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from pipeline.dates import fill_date
from pipeline.errors import ConfigError
from zipstage.errors import nearest
from zipstage.purifiers.settings import METHODS, Settings, settings_for

ENVIRONMENT_PREFIX = "ZIPSTAGE_"


class Model(BaseModel):
    """Base of all settings: frozen, and nothing unknown passes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PurifierConfig(BaseModel):
    """Which method, with which settings; any setting of the method may stand beside these."""

    model_config = ConfigDict(extra="allow", frozen=True)

    method: str = Field("restore", description=f"one of {', '.join(METHODS)}")
    preset: str = Field("default", description="a named set of the method's settings")
    seed: SecretStr = Field(
        SecretStr("0"),
        description="keys the noise; 0 is public, 128 random bits from the environment are not",
    )
    batch: int = Field(0, ge=0, description="cells in a network call; 0 takes the device's default")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes GPUs where there are any")

    @field_validator("seed", mode="before")
    @classmethod
    def _seed_as_text(cls, value: Any) -> Any:  # noqa: ANN401 - what a YAML file holds
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    def settings(self) -> Settings:
        """The method's settings, checked.

        Raises:
            SettingsError: No such method, preset or setting.
        """
        return settings_for(self.method, self.preset, self.model_extra)

    def seed_bytes(self) -> bytes:
        return self.seed.get_secret_value().encode()


class PartConfig(Model):
    """How much of a shard travels at once; parts are the unit of work, of loss and of resume."""

    tiles: int = Field(64, ge=1, description="tiles of 256x256 in a part")
    max_mib: int = Field(64, ge=1, description="MiB of pixels and other members in a part")


class EncodingConfig(Model):
    """How purified images are written."""

    format: Literal["png", "webp", "jpeg"] = "png"
    quality: int = Field(95, ge=1, le=100, description="of webp and jpeg")


class LimitsConfig(Model):
    """What is decoded at most; a sample beyond is `rejected`."""

    max_pixels: int = Field(50_000_000, ge=1, description="pixels of an image")
    max_member_mib: int = Field(256, ge=1, description="MiB of one tar member")
    max_sample_mib: int = Field(512, ge=1, description="MiB of all members of one sample")
    max_members: int = Field(64, ge=1, description="members of one sample")


class InputConfig(Model):
    """What the classifier's network takes, and how an image becomes that."""

    name: str | None = Field(None, description="of the input; none: as discovered, else input-0")
    size: int | tuple[int, int] | None = Field(
        None, description="side in px, or (height, width); none: as discovered, else as received"
    )
    resize: Literal["bilinear", "bicubic", "nearest", "area"] = "bilinear"
    crop: Literal["none", "center"] = Field("none", description="center: shrink the short side, then cut the middle")
    layout: Literal["NCHW", "NHWC"] | None = Field(None, description="none: as discovered, else NCHW")
    dtype: Literal["float32", "uint8", "bytes"] | None = Field(
        None, description="none: as discovered, else float32; bytes sends encoded images"
    )
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

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

    protocol: Literal["open-inference-v2", "json-http", "sagemaker", "onnx", "torch-export"]
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
        for field in _NEEDED[self.protocol]:
            if not getattr(self, field):
                raise ValueError(f"protocol {self.protocol} needs `{field}`")
        if self.protocol not in ("json-http", "sagemaker"):
            for field in ("region", "content", "content_type", "request", "result"):
                if getattr(self, field) is not None:
                    raise ValueError(f"protocol {self.protocol} has no `{field}`")
        elif self.output is not None:
            raise ValueError(f"protocol {self.protocol} has no `output`; `result` says where the answers stand")
        elif self.protocol == "sagemaker" and (self.content == "multipart" or self.token or self.headers):
            raise ValueError(
                "protocol sagemaker has AWS credentials instead of `token` and `headers`, and no multipart"
            )
        elif (self.content or "json") in ("json", "multipart") and self.request is None:
            raise ValueError(f"protocol {self.protocol} needs `request`, with $image where the image stands")
        return self


_NEEDED = {
    "open-inference-v2": ("url", "model"),
    "json-http": ("url",),
    "sagemaker": ("model",),
    "onnx": ("path",),
    "torch-export": ("path",),
}


def _variable(name: str, text: Any) -> Any:  # noqa: ANN401 - what a YAML file holds
    """A header's value; `$NAME` is that of an environment variable, so that no file holds it."""
    if not (isinstance(text, str) and text.startswith("$")):
        return text
    if (value := os.environ.get(text[1:])) is None:
        raise ValueError(f"expected the environment variable {text[1:]} for the header {name!r}, it isn't set")
    return value


class AskConfig(Model):
    """What of the classifier's answers is asked for and kept."""

    before: bool = Field(True, description="ask about the images as received too; off halves the cost")
    top: int = Field(5, ge=1, description="scores kept, the largest first")
    chunk: int = Field(2048, ge=1, description="samples between two stagings of answers")


class AlertConfig(Model):
    """When flips that concentrate on one class are an alert, and the exit code 3."""

    enabled: bool = Field(True, description="whether the answers are looked at, once all are there")
    threshold: float = Field(
        0.2, gt=0, lt=1, description="share of a class's answers that flip, beyond the median of the other classes"
    )
    min_answers: int = Field(50, ge=1, description="answers that a class must have to be judged by itself")


class StorageConfig(Model):
    """How storage is reached; credentials come from where boto3 finds them."""

    patience_s: float = Field(60.0, ge=0, description="how long a request waits for an unreachable store")
    range_mib: int = Field(8, ge=1, le=64, description="MiB of one ranged read")


class ClusterConfig(Model):
    """Where the graph runs, and how much of it at once."""

    address: str | None = Field(None, description="a Ray address; none: RAY_ADDRESS, else a local cluster")
    actors: int = Field(0, ge=0, description="purifiers; 0: one a GPU, without GPUs as many as CPUs leave room for")
    max_attempts: int = Field(5, ge=1, description="tries of one part that may end its worker before its shard fails")
    commits: int = Field(2, ge=1, description="commits under way at once")
    window_parts: int = Field(20_000, ge=1, description="parts in one window of shards, estimated by their bytes")
    object_store_mib: int = Field(0, ge=0, description="shared memory of a cluster of its own; 0: Ray's default")
    stall_s: float = Field(600.0, gt=0, description="seconds without any progress before the job gives up")
    lease_s: float = Field(
        30.0,
        ge=0,
        description="seconds without a sign of life after which another run takes over the output; 0: no lease, and "
        "two runs may be at work there",
    )
    shared_filesystem: bool = Field(False, description="local paths are the same files on every node")


class JobConfig(Model):
    """One job. `input` and `output` alone are enough."""

    input: Annotated[
        tuple[str, ...],
        Field(min_length=1, description="folders, globs, brace patterns or s3:// prefixes of tar shards"),
    ]
    output: str = Field(description="folder or s3:// prefix; another one for other settings")
    purifier: PurifierConfig = PurifierConfig()
    part: PartConfig = PartConfig()
    encoding: EncodingConfig = EncodingConfig()
    limits: LimitsConfig = LimitsConfig()
    classifier: ClassifierConfig | None = Field(None, description="the black box to ask; none: purify only")
    ask: AskConfig = AskConfig()
    alert: AlertConfig = AlertConfig()
    storage: StorageConfig = StorageConfig()
    cluster: ClusterConfig = ClusterConfig()
    overwrite: bool = Field(False, description="purify committed shards again, with the same settings")
    retry_failed: bool = Field(False, description="purify committed shards with samples that failed again")
    give_up: bool = Field(False, description="commit a shard whose samples can't all be purified; they get failed rows")
    limit: int | None = Field(None, ge=1, description="only the first N shards")
    date: str | None = Field(
        None, description="YYYY-MM-DD, today or yesterday (UTC): fills {date} in input, output, marker and latest"
    )
    marker: str | None = Field(
        None, description="start only when this is there, such as _SUCCESS in each input's folder; or a path of its own"
    )
    latest: str | None = Field(
        None, description="file to name this output in once all is done; none: latest.json beside outputs with {date}"
    )
    run: str | None = Field(None, description="name of the run, below runs/ in the output; none: made of the clock")

    @field_validator("run", "marker", "latest")
    @classmethod
    def _says_something(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("expected a name, found an empty text; leave it out for none")
        return value

    @field_validator("run")
    @classmethod
    def _is_a_run(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", value):
            raise ValueError(
                "expected up to 100 letters, digits, '_', '.' and '-', beginning with one of the first two"
            )
        return value

    @field_validator("input", mode="before")
    @classmethod
    def _one_input(cls, value: Any) -> Any:  # noqa: ANN401 - what a YAML file holds
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _settings_exist(self) -> JobConfig:
        self.purifier.settings()
        most = self.classifier.max_queries if self.classifier else None
        if most is not None and most < 1 + self.ask.before:
            raise ValueError("classifier.max_queries: expected 2 or more with ask.before, since a sample is two images")
        return self


def load_config(
    path: str | os.PathLike[str] | None = None,
    flags: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
    defaults: dict[str, Any] | None = None,
) -> JobConfig:
    """The job of a YAML file, the environment over it, and flags over both.

    Args:
        path: A YAML file, or none.
        flags: Nested values, as `nest` makes them of dotted names.
        environment: Variables; those that begin with ZIPSTAGE_ count, `__` between levels.
        defaults: Nested values of fields that nothing else sets.

    Raises:
        ConfigError: Not readable, not YAML, or fields that are unknown, missing or wrong: each is named.
        SettingsError: The purifier has no such method, preset or setting.
    """
    values: dict[str, Any] = dict(defaults or {})
    if path is not None:
        values = _merge(values, _read_yaml(Path(path)))
    for over in (_from_environment(environment or {}), flags or {}):
        values = _merge(values, over)
    values = fill_date(values)
    try:
        return JobConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe(error, str(path) if path else "the flags")) from None


def nest(values: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries of dotted names: {'a.b': 1} becomes {'a': {'b': 1}}."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        level: dict[str, Any] = {}
        nested_value: Any = value
        for part in reversed(name.split(".")):
            level = {part: nested_value}
            nested_value = level
        nested = _merge(nested, level)
    return nested


def describe(error: ValidationError, where: str) -> str:
    """One line for each wrong field: the field, what was expected, what was found."""
    lines = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"])
        match item["type"]:
            case "extra_forbidden":
                known = _fields_at(item["loc"][:-1])
                hint = nearest(str(item["loc"][-1]), known)
                lines.append(f"{where}: no such field {field!r}.{hint} Known here: {', '.join(known)}.")
            case "missing":
                lines.append(f"{where}: {field!r} is missing: {_description(item['loc'])}.")
            case _:
                found = "" if field == "" or item["type"] == "value_error" else f", found {_shown(item)}"
                lines.append(f"{where}: {field or 'the job'}: {item['msg'].removeprefix('Value error, ')}{found}.")
    return "\n".join(lines)


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ValueError(f"expected a list of names or a file, {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"expected {path} in UTF-8, found other bytes") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"config {path}: can't be read: {error.strerror}. Name an existing YAML file.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"config {path}: expected YAML in UTF-8, found other bytes.") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"config {path}: not YAML: {reason}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"config {path}: expected fields such as `input: ...`, found a {type(values).__name__}.")
    return values


def _from_environment(environment: dict[str, str]) -> dict[str, Any]:
    found = {}
    top = set(JobConfig.model_fields)
    for name, text in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        path = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        if path[0] in top:  # ZIPSTAGE_DATA and the like belong to others
            field = ".".join(path)
            found[field] = parse_value(text, field)
    return nest(found)


def parse_value(text: str, field: str = "") -> Any:  # noqa: ANN401 - whatever YAML makes of it
    """A flag's or a variable's text, read as YAML: `3`, `true`, `[a, b]`; else the text itself.

    The value of a text field stays as it stands: `--output 2026-11-20` is no date, a seed of digits no number.
    """
    is_list = text.startswith("[") and text.endswith("]")
    if field and _is_text(field) and not is_list:
        return None if text in ("null", "~") else text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return text if value is None and text.strip() not in ("null", "~") else value


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _model_at(location: tuple[int | str, ...]) -> type[BaseModel] | None:
    model: type[BaseModel] = JobConfig
    for part in location:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field else None
        options = [annotation, *getattr(annotation, "__args__", ())]
        below = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
        if below is None:
            return None
        model = below
    return model


def _is_text(field: str) -> bool:
    """Whether a field, or each element of a list field, is text."""
    *above, name = field.split(".")
    model = _model_at(tuple(above))
    known = model.model_fields.get(name) if model else None
    if known is None:
        return False
    annotation = known.annotation
    if get_origin(annotation) is dict:
        return False
    if get_origin(annotation) is tuple:
        annotation = get_args(annotation)[0]
    return {*(get_args(annotation) or (annotation,))} <= {str, SecretStr, type(None)}


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    model = _model_at(location)
    return list(model.model_fields) if model else []


def _description(location: tuple[int | str, ...]) -> str:
    model = _model_at(location[:-1])
    field = model.model_fields.get(str(location[-1])) if model else None
    return (field.description if field else None) or "it has no default"


def _shown(item: Any) -> str:  # noqa: ANN401 - pydantic's error details
    secret = any(str(part) in ("seed", "token", "headers") for part in item["loc"])
    return "a secret" if secret else repr(item["input"])
