"""Nights on a cluster of two nodes that wants a token, from outside of it: refused, waiting, stopped, resumed."""

from __future__ import annotations

import io
import json
import secrets
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Bucket
from making import Members, samples
from raycluster import TESTS, cluster, environment, python_with_dashboard
from storing import write_classifier

from pipeline.store import open_store
from pipeline.verify import verify

pytestmark = [pytest.mark.drill, pytest.mark.s3]

NIGHT = "2026-11-20"
SHARDS, SAMPLES = 4, 512
PATIENCE_S = 600.0
"""On a busy machine everything is slow; whoever waits longer has found a bug."""


@dataclass(frozen=True)
class Scene:
    """A cluster, a bucket, and a config that names both.

    Args:
        python: An environment with Ray's job client.
        address: The job server's.
        env: That of its nodes, with the token that it wants.
        s3: Input and output.
        config: jobs/configs/nightly.yaml, in that bucket, with a classifier that is a file.
    """

    python: str
    address: str
    env: dict[str, str]
    s3: Bucket
    config: Path

    @property
    def output(self) -> str:
        return f"{self.s3.uri}/purified/night/{NIGHT}/"

    def command(self, *more: str, address: str | None = None) -> list[str]:
        words = [self.python, "-W", "ignore", "-m", "jobs", "submit", str(self.config), "--date", NIGHT]
        return [*words, "--address", address or self.address, *more]

    def submit(self, *more: str, token: str | None = None, address: str | None = None) -> tuple[int, str]:
        """Exit code and all that was said, which is shown as well."""
        env = {**self.env, "RAY_AUTH_TOKEN": self.env["RAY_AUTH_TOKEN"] if token is None else token}
        for name in ("RAY_AUTH_MODE", *(["RAY_AUTH_TOKEN"] if token == "" else [])):
            del env[name]  # who has a token need not say that there are tokens
        command = self.command(*more, address=address)
        done = subprocess.run(
            command, env=env, cwd=TESTS.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        print(f"-> {done.returncode}")
        for line in done.stdout.splitlines():
            print(f"   {line}")
        return done.returncode, done.stdout

    def ray_job(self, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [
            self.python,
            "-W",
            "ignore",
            "-m",
            "ray.scripts.scripts",
            "job",
            verb,
            "--address",
            self.address,
            *words,
        ]
        return subprocess.run(command, env=self.env, cwd=TESTS.parent, capture_output=True, text=True, check=False)

    def put(self, path: str, data: bytes) -> None:
        self.s3.client.put_object(Bucket=self.s3.name, Key=path, Body=data)

    def get(self, path: str) -> Any:
        return json.loads(self.s3.client.get_object(Bucket=self.s3.name, Key=path)["Body"].read())

    def paths(self, below: str) -> list[str]:
        pages = self.s3.client.get_paginator("list_objects_v2").paginate(Bucket=self.s3.name, Prefix=below)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def num_done(self) -> int:
        """Parts that are staged, or in a committed shard."""
        whole, staged = (len(self.paths(f"purified/night/{NIGHT}/{below}/")) for below in ("records", "_staging"))
        return whole * SAMPLES // 64 + staged

    def summary(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"purified/night/{NIGHT}/runs/{run}/summary.json")
        return found


def shard(members: list[Members]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in (member for group in members for member in group):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.fixture
def scene(s3: Bucket, tmp_path: Path) -> Iterator[Scene]:
    python = python_with_dashboard()
    write_classifier(tmp_path / "bright.onnx")
    fields = yaml.safe_load((TESTS.parent / "jobs/configs/nightly.yaml").read_text().replace("s3://", f"{s3.uri}/"))
    fields["classifier"] = {"protocol": "onnx", "path": str(tmp_path / "bright.onnx"), "name": "bright"}
    fields["classifier"]["input"] = {"mean": [0.5], "std": [0.5]}
    fields["part"] = {"tiles": 1}
    config = tmp_path / "nightly.yaml"
    config.write_text(yaml.safe_dump(fields))
    env = environment(secrets.token_hex(32), tmp_path)
    with cluster(python, env, num_nodes=2) as address:
        made = Scene(python, address, env, s3, config)
        for number in range(SHARDS):
            made.put(f"incoming/night/{NIGHT}/{number}.tar", shard(samples(SAMPLES, SAMPLES * number)))
        yield made


def test_what_is_refused_says_why_and_a_night_waits_for_its_marker_and_is_done_once(scene: Scene) -> None:
    print("\na wrong token")
    code, said = scene.submit(token=secrets.token_hex(32))
    assert (code, "refused" in said, "RAY_AUTH_TOKEN" in said) == (2, True, True)
    print("no token")
    code, said = scene.submit(token="")
    assert (code, "no authentication token was found" in said or "Missing" in said) == (2, True)
    print("an address where nothing answers")
    code, said = scene.submit(address="http://127.0.0.1:9")
    assert (code, "nothing answers there" in said) == (75, True)
    print("an address where something else answers")
    code, said = scene.submit(address=scene.s3.environment["AWS_ENDPOINT_URL"])
    assert (code, scene.s3.environment["AWS_ENDPOINT_URL"] in said) == (2, True)
    print("a wrong field")
    assert scene.submit("--purifer.preset", "fast")[0] == 2
    print("a bucket that isn't there: only the job finds out")
    code, said = scene.submit("--input", "s3://no-such-bucket-here/{date}/")
    assert (code, "there is no such bucket" in said) == (1, True)

    print("the marker is missing")
    code, said = scene.submit("--purifier.method", "none")
    assert code == 75
    assert f"marker {scene.s3.uri}/incoming/night/{NIGHT}/_SUCCESS: not there yet" in said
    assert scene.paths("purified/") == []

    print("the marker is there")
    scene.put(f"incoming/night/{NIGHT}/_SUCCESS", b"")
    code, said = scene.submit("--purifier.method", "none", "--run", "first")
    assert code == 0
    latest = scene.get("purified/night/latest.json")
    print(f"latest.json: {json.dumps(latest)}")
    assert (latest["date"], latest["run"], latest["shards"]) == (NIGHT, "first", SHARDS)
    assert latest["samples"] == latest["answers"] == {"ok": SHARDS * SAMPLES}

    print("once more")
    code, said = scene.submit("--purifier.method", "none", "--run", "second")
    assert (code, scene.summary("second")["committed"], scene.summary("second")["asked"]) == (0, [], [])
    assert "exit 0: nothing new" in said
    again = scene.get("purified/night/latest.json")
    assert {**again, "run": "first"} == latest
    print("a run's name that is taken")
    assert scene.submit("--purifier.method", "none", "--run", "second")[0] == 2


def test_a_job_is_stopped_by_ray_and_by_its_submitter_and_the_next_one_does_the_rest(scene: Scene) -> None:
    scene.put(f"incoming/night/{NIGHT}/_SUCCESS", b"")
    words = ["zipstage", "purify", str(scene.config), "--date", NIGHT, "--run", "stopped"]
    started = scene.ray_job("submit", "--no-wait", "--submission-id", "stopped", "--", *words)
    assert started.returncode == 0, started.stderr
    until(lambda: scene.num_done() >= 3)
    began = time.monotonic()
    assert scene.ray_job("stop", "stopped").returncode == 0
    until(lambda: "was stopped" in said_by(scene.ray_job("status", "stopped")))
    first = scene.summary("stopped")
    print(f"\nray job stop: ended in {time.monotonic() - began:.0f} s, {first['exit_code']}, parts {first['parts']}")
    assert (first["exit_code"], set(first["parts"])) == (130, {"staged"})

    process = subprocess.Popen(
        scene.command("--run", "cancelled"),
        env=scene.env,
        cwd=TESTS.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    known = first["parts"]["staged"]
    until(lambda: scene.num_done() >= known + 3)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=PATIENCE_S)
    print("\n".join(f"   {line}" for line in said.splitlines()))
    second = scene.summary("cancelled")
    print(f"the submitter's SIGTERM: {process.returncode}, parts {second['parts']}")
    assert (process.returncode, second["exit_code"]) == (130, 130)

    code, _ = scene.submit("--run", "rest")
    third = scene.summary("rest")
    purified = [summary["parts"].get("staged", 0) for summary in (first, second, third)]
    print(f"parts purified by each run: {purified}, {SHARDS * SAMPLES // 64} in all")
    assert code == 0
    assert sum(purified) <= SHARDS * SAMPLES // 64  # none twice; one whose receipt came too late counts nowhere
    report = verify(open_store(scene.output))
    assert (report.samples, report.findings) == (SHARDS * SAMPLES, [])
    assert scene.get("purified/night/latest.json")["run"] == "rest"


def said_by(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


def until(is_so: Callable[[], bool]) -> None:
    waited_until = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < waited_until, "waited in vain"
        time.sleep(0.5)
