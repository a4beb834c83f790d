"""A job on a cluster whose metrics the real Prometheus scrapes: each query of the dashboard says something, and its
figures are those of the run's summary and tables."""

from __future__ import annotations

import json
import math
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import yaml
from making import Members, encoded, picture, samples, write_tar
from raycluster import TESTS, environment, python_with_dashboard, session
from storing import write_classifier

GRAFANA = TESTS.parent / "infra/grafana"
SHARDS, SAMPLES = 4, 400
PATIENCE_S = 600.0
"""On a busy machine everything is slow; whoever waits longer has found a bug."""

pytestmark = [pytest.mark.drill]


@dataclass(frozen=True)
class Prometheus:
    """A server that scrapes the cluster."""

    url: str

    def ask(self, path: str, **query: Any) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=60) as answer:
            return json.load(answer)["data"]

    def values(self, query: str) -> dict[str, float]:
        """What a query says now, by the value of its only label; '' where it has none."""
        found = self.ask("query", query=query)["result"]
        return {"".join(one["metric"].values()): float(one["value"][1]) for one in found}

    def over(self, query: str, since: float) -> list[float]:
        """The numbers that a query gives between then and now."""
        found = self.ask("query_range", query=query, start=since, end=time.time(), step=2)["result"]
        return [float(value) for one in found for _, value in one["values"] if math.isfinite(float(value))]


@pytest.fixture(scope="module")
def program() -> str:
    made = subprocess.run([TESTS / "prometheus/environment.sh"], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no Prometheus: {made.stderr.strip()}")
    return made.stdout.strip()


@contextmanager
def prometheus(program: str, folder: Path, discovery: Path) -> Iterator[Prometheus]:
    """One with the config that is shipped, but for this cluster's file and a shorter time between two looks."""
    config = yaml.safe_load((GRAFANA / "prometheus.yml").read_text())
    config["global"]["scrape_interval"] = "1s"
    config["scrape_configs"][0]["file_sd_configs"] = [{"files": [str(discovery)], "refresh_interval": "1s"}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={address}"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen([program, *flags], cwd=folder, stdout=log, stderr=log)
    server = Prometheus(f"http://{address}")
    try:
        until("Prometheus sees the cluster's nodes", lambda: server.values('sum(up{job="ray"})').get("", 0) >= 2)
        yield server
    finally:
        process.terminate()
        process.wait()


def until(what: str, holds: Callable[[], bool]) -> float:
    """Wait until something holds; gives the seconds that it took."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE_S:
        try:
            if holds():
                return time.monotonic() - began
        except OSError:
            pass  # not up yet
        time.sleep(0.5)
    raise AssertionError(f"waited {PATIENCE_S:.0f} s: {what}")


def queries() -> Iterator[tuple[str, str]]:
    """Each query of the dashboard, as Grafana would send it for this run."""
    dashboard = json.loads((GRAFANA / "zipstage.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"].replace("$run", "night").replace("$__rate_interval", "10s")
            yield panel["title"], query.replace("$__range", "1h")


def gray(number: int) -> Members:
    """A sample whose picture is neither bright nor dark: purified, it may be the other."""
    pixels = picture(number).astype(float)
    middle = np.clip(pixels - pixels.mean() + 127.5, 0, 255).round().astype(np.uint8)
    return [(f"gray{number}.png", encoded(middle)), (f"gray{number}.cls", b"1")]


def test_what_prometheus_scrapes_is_what_the_run_says_of_itself(program: str, tmp_path: Path) -> None:
    for shard in range(SHARDS):
        members = [gray(i) if i % 4 == 0 else sample for i, sample in enumerate(samples(SAMPLES, shard * SAMPLES))]
        members[7] = [("broken.png", b"no image"), ("broken.cls", b"1")]
        members[8] = [("two.png", members[8][0][1]), ("two.jpg", members[9][0][1])]
        write_tar(tmp_path / f"in/{shard}.tar", members)
    whole = (tmp_path / "in/0.tar").read_bytes()
    (tmp_path / "in/cut.tar").write_bytes(whole[: len(whole) // 2])
    write_classifier(tmp_path / "bright.onnx")
    flags = {
        "input": tmp_path / "in",
        "output": tmp_path / "out",
        "purifier.preset": "fast",
        "part.tiles": 1,
        "classifier.protocol": "onnx",
        "classifier.path": tmp_path / "bright.onnx",
        "classifier.name": "bright",
        "classifier.input.mean": "[0.5]",
        "classifier.input.std": "[0.5]",
        "cluster.shared_filesystem": "true",
        "run": "night",
    }
    python = python_with_dashboard()
    commands = tmp_path / "commands"
    commands.mkdir()
    # Reported each second, so that a job of a minute has a course; Ray's default is ten.
    env = {**environment(secrets.token_hex(16), commands), "RAY_metrics_report_interval_ms": "1000"}
    with session(python, env, 1) as ray:
        discovery = Path(ray["folder"]) / "prom_metrics_service_discovery.json"
        with prometheus(program, tmp_path, discovery) as server:
            began = time.time()
            words = [f"--{name}={value}" for name, value in flags.items()]
            command = [python, "-W", "ignore", "-m", "jobs", "submit", "--address", ray["address"], *words]
            done = subprocess.run(command, env=env, cwd=TESTS.parent, capture_output=True, text=True, check=False)
            assert done.returncode == 1, done.stdout + done.stderr  # of the shard that is cut
            check(server, tmp_path / "out", began)


def check(server: Prometheus, output: Path, began: float) -> None:
    summary = json.loads((output / "runs/night/summary.json").read_text())
    took_s = until("the last counts come", lambda: server.values('ray_zipstage_samples_total{status="ok"}') != {})
    print(f"\nthe run's last counts were there {took_s:.1f} s after its end")

    def counted(name: str, by: str) -> dict[str, float]:
        found = server.values(f'sum by ({by}) (ray_zipstage_{name}_total{{run="night"}})')
        return {value: count for value, count in found.items() if count}

    until("the counts are those of the summary", lambda: counted("samples", "status") == summary["statuses"])
    told = {
        "samples": (counted("samples", "status"), summary["statuses"]),
        "answers": (counted("answers", "status"), summary["answers"]),
        "parts": (counted("parts", "outcome"), summary["parts"]),
        "images": (counted("images", "run")["night"], summary["images"]),
        "flips": (counted("flips", "run"), {"night": summary["flipped"]}),
        "shards": (
            counted("shards", "outcome"),
            {"committed": len(summary["committed"]), "answered": len(summary["asked"]), "failed": 1},
        ),
    }
    for name, (scraped, said) in told.items():
        print(f"{name}: Prometheus {scraped}, summary {said}")
        assert scraped == said

    def count(query: str) -> int:
        ((value,),) = duckdb.connect().execute(query).fetchall()
        return int(value)

    tables, predictions = f"'{output}/tables/*.parquet'", f"'{output}/predictions/bright/*.parquet'"
    assert count(f"select count(*) from {tables}") == sum(summary["statuses"].values())
    assert summary["flipped"] == count(f"select count(*) from {predictions} where flipped") > 0
    asked = 2 * count(f"select count(*) from {predictions} where status = 'ok'")
    sizes = {folder: sum(p.stat().st_size for p in (output / folder).iterdir()) for folder in ("shards", "tables")}
    assert server.values("sum(ray_zipstage_written_bytes_total)") == {"": sum(sizes.values())}
    # What workers count: with an end in order nothing is lost, and a worker that was ended takes its last second along.
    for name, expected in (("queries", asked), ("cells", summary["images"])):
        scraped = sum(server.values(f"sum(ray_zipstage_{name}_total)").values())
        print(f"{name}: Prometheus {scraped:.0f}, expected {expected}")
        assert 0 < scraped <= expected * 1.1  # the shard that is cut has purified cells as well

    silent = []
    for title, query in queries():
        found = server.over(query, began)
        print(f"{title}: {len(found)} numbers, {min(found, default=0):.4g} to {max(found, default=0):.4g}: {query}")
        silent += [] if found else [title]
    assert not silent
    for stage in ("read", "purify", "stage", "commit", "ask"):
        assert max(server.over(f'sum(ray_zipstage_stage_seconds_total{{stage="{stage}"}})', began)) > 0
    busy = server.over(dict(queries())["Purifiers busy"], began)
    assert 0 < max(busy) <= 1.01


# --- without what exports them -----------------------------------------------------------------------------


def test_without_rays_dashboard_nothing_is_exported_and_nothing_fails(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/0.tar", samples(64))
    program = (
        "import json, ray, sys\n"
        "from pipeline.config_loading import load_config, nest\n"
        "from pipeline.job import purify\n"
        "ports = []\n"
        "def watch(fact):\n"
        "    if type(fact).__name__ == 'Started': ports.extend(node['MetricsExportPort'] for node in ray.nodes())\n"
        "done = purify(load_config(None, nest(json.loads(sys.argv[1]))), watch)\n"
        "print(json.dumps([ports, done.exit_code]))\n"
    )
    fields = {"input": str(tmp_path / "in"), "output": str(tmp_path / "out"), "purifier.method": "none"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, json.dumps(fields)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ports, code = json.loads(done.stdout.splitlines()[-1])
    print(f"\nwithout ray[default]: ports {ports}, exit code {code}, on stderr {done.stderr!r}")
    assert (ports, code) == ([-1], 0)


COUNTING = """
import json, sys, time
import numpy as np
from inverting import Inverting
from making import picture
from pipeline import metrics
from pipeline.facts import Started
from pipeline.parts import Receipt
from pipeline.run_metrics import RunMetrics
from zipstage.tiles import pack

PARTS = 2000

def seconds_a_part():
    groups = pack([picture(i) for i in range(64)], np.zeros((64, 2), np.uint64)).groups
    clock, run = metrics.PurifierClock(Inverting(), "cpu", 0), RunMetrics("night")
    run.note(Started("cpu", 2))
    began = time.perf_counter()
    for index in range(PARTS):
        for _ in metrics.timed("read", [index]):
            pass
        with clock.busy():
            pass
        clock.count(groups)
        with metrics.took("stage"):
            pass
        run.note(Receipt("a.tar", "p", index, False, "staged", None, 64, 64, 1000))
    return (time.perf_counter() - began) / PARTS

found = {"outside of Ray": seconds_a_part()}
import ray
ray.init(address="local", num_cpus=1, log_to_driver=False, logging_level="ERROR")
found["on Ray"] = ray.get(ray.remote(seconds_a_part).remote())
print(json.dumps(found))
"""


@pytest.mark.parametrize("exports", [False, True])
def test_counting_costs_next_to_nothing(exports: bool) -> None:
    python = python_with_dashboard() if exports else sys.executable
    search = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    done = subprocess.run(
        [python, "-W", "ignore", "-c", COUNTING],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for where, seconds in found.items():
        print(f"\n{'with' if exports else 'without'} an exporter, {where}: {seconds * 1e6:.1f} us a part")
    assert found["on Ray"] < 0.05  # a part takes some seconds; this is no measure of a busy machine
