"""A job's settings: one set of models is the YAML, the flags and the environment.

Loads neither torch nor Ray, so that `--help` is fast. Contradictions are found here, before any work;
`config_loading` reads the models from where people write them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from pipeline.classifier_config import ClassifierConfig
from pipeline.model import Model
from zipstage.purifiers.settings import METHODS, Settings, settings_for

LogFormat = Literal["text", "json"]


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

    format: Literal["png", "webp", "jpeg"] = Field("png", description="png keeps each pixel; the others are smaller")
    quality: int = Field(95, ge=1, le=100, description="of webp and jpeg")


class LimitsConfig(Model):
    """What is decoded at most; a sample beyond is `rejected`."""

    max_pixels: int = Field(50_000_000, ge=1, description="pixels of an image")
    max_member_mib: int = Field(256, ge=1, description="MiB of one tar member")
    max_sample_mib: int = Field(512, ge=1, description="MiB of all members of one sample")
    max_members: int = Field(64, ge=1, description="members of one sample")


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
    """One job. `input` and `output` alone are enough.

    Example:
        input: s3://incoming/2026-11-20/
        output: s3://purified/2026-11-20/
        purifier: {method: restore, preset: default}
        classifier:
          protocol: open-inference-v2
          url: http://vision.internal:8000
          model: signs
          input: {size: 32, layout: NCHW, mean: [0.5], std: [0.5]}
    """

    input: Annotated[
        tuple[str, ...],
        Field(min_length=1, description="tar shards: folders, globs, brace patterns, s3:// prefixes"),
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
    report: bool = Field(True, description="write runs/RUN/report.html, a page for people, when the run ends")
    run: str | None = Field(None, description="name of the run, below runs/ in the output; none: made of the clock")
    log_format: LogFormat = Field(
        "text", description="what is told while it runs: for people; or json, an object a line on stderr and no table"
    )

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
