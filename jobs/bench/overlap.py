"""Do purifying and asking run at the same time? A purifier that sleeps, a classifier that sleeps, and both.

Both only wait, so what the whole job takes beyond the slower of the two is the stage's own: all three
are measured in a steady state, from the shard that ends the beginning to the last one.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from jobs.bench.shards import flat, write_shards
from jobs.bench.speed import run_job
from pipeline.ask import Asked
from pipeline.classifier_config import ClassifierConfig
from pipeline.commit import Committed
from pipeline.config import JobConfig
from pipeline.engine import Engine
from pipeline.errors import ConfigError
from pipeline.facts import Fact
from pipeline.job import EngineOf, query
from pipeline.store import Store
from zipstage.errors import ZipstageError

MIN_SHARDS = 16
BEGINNING = 4
"""Shards before the steady state: so many are asked about at once, so the first ones end late."""

PARTS, PART_S = 4, 0.4
"""Parts of a shard, and how long the purifier sleeps over each."""

IMAGES_A_PART, SIDE_PX = 16, 64
"""They fill a tile, and a part is one tile."""

REQUEST_S, BATCH = 0.05, 4
"""With one request at a time, a shard's answers take as long as its purification: what overlaps worst."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Seconds for a shard in a steady state.

    Args:
        shards: How many there were.
        purify_s: Purified and committed, with no classifier.
        ask_s: Asked about alone, after all were committed.
        whole_s: Purified, committed and asked about.
    """

    shards: int
    purify_s: float
    ask_s: float
    whole_s: float

    @property
    def ratio(self) -> float:
        """The whole over the slower of the two alone: 1 is all of it at the same time."""
        return self.whole_s / max(self.purify_s, self.ask_s)

    def rows(self) -> list[tuple[str, str]]:
        where = f"in the steady state of {self.shards} shards"
        return [
            ("purify alone", f"{self.purify_s:.3f} s a shard, {where}"),
            ("ask alone", f"{self.ask_s:.3f} s a shard"),
            ("whole job", f"{self.whole_s:.3f} s a shard"),
            ("ratio", f"{self.ratio:.3f} of the slower of the two; one after the other would be {self._in_turns:.3f}"),
        ]

    @property
    def _in_turns(self) -> float:
        return (self.purify_s + self.ask_s) / max(self.purify_s, self.ask_s)


def measure_overlap(
    config: JobConfig, folder: Path, shards: int, watch: Callable[[str], None], engine_of: EngineOf | None = None
) -> Overlap:
    """Run the purification, the asking and both over shards that cost nothing but time.

    Args:
        config: The job; its input, output, parts and classifier are set here.
        folder: For its shards and outputs.
        shards: How many.
        watch: Told what comes next.
        engine_of: Makes the engine; none: Ray, with a purifier that sleeps.

    Raises:
        ConfigError: Fewer shards than a steady state needs.
        ZipstageError: A job failed.
    """
    if shards < MIN_SHARDS:
        raise ConfigError(f"bench --overlap: expected --shards of {MIN_SHARDS} or more, found {shards}.")
    engine_of = engine_of or sleeping_engine
    per_shard = PARTS * IMAGES_A_PART
    write_shards(flat(shards * per_shard, SIDE_PX), folder / "overlap", per_shard)
    with serving(REQUEST_S) as url:
        job = _job(config, folder)
        asking = _asking(job, url)
        watch("purification alone")
        purify_s = _steady_s(Committed, lambda tell: run_job(job, tell, engine_of))
        watch("asking alone")
        ask_s = _steady_s(Asked, lambda tell: _query(asking, tell, engine_of))
        watch("both")
        whole = asking.model_copy(update={"output": str(folder / "overlap-whole")})
        whole_s = _steady_s(Asked, lambda tell: _answered(run_job(whole, tell, engine_of)))
    return Overlap(shards, purify_s, ask_s, whole_s)


def _job(config: JobConfig, folder: Path) -> JobConfig:
    return config.model_copy(
        update={
            "input": (str(folder / "overlap"),),
            "output": str(folder / "overlap-out"),
            "part": config.part.model_copy(update={"tiles": 1}),
            "cluster": config.cluster.model_copy(update={"actors": 1}),
        }
    )


def _asking(job: JobConfig, url: str) -> JobConfig:
    classifier = ClassifierConfig(
        protocol="json-http", url=url, content="npy", result="classes", batch=BATCH, concurrency=1, name="sleeping"
    )
    return job.model_copy(update={"classifier": classifier})


def _query(config: JobConfig, tell: Callable[[Fact], None], engine_of: EngineOf) -> None:
    _answered(query(config, tell, engine_of))


def _answered(summary: Any) -> None:  # noqa: ANN401 - a Summary
    if summary.exit_code:
        raise ZipstageError("\n".join(summary.unanswered.values()) or f"bench: exit code {summary.exit_code}")


def _steady_s(kind: type[Committed | Asked], run: Callable[[Callable[[Fact], None]], Any]) -> float:
    """Seconds from one shard's end to the next one's, from the end of the beginning on."""
    ended: list[float] = []

    def tell(fact: Fact) -> None:
        if isinstance(fact, kind):
            ended.append(time.monotonic())

    run(tell)
    steady = ended[BEGINNING - 1 :]
    return (steady[-1] - steady[0]) / (len(steady) - 1)


def sleeping_engine(config: JobConfig, output: Store, fingerprint: str) -> Engine:
    """Ray, with a purifier that sleeps over each part; what is beside it is the stage's own."""
    from pipeline import workers
    from pipeline.graph import RayEngine

    class Sleeping(workers.PurifyActor):
        def __call__(self, batch: Any) -> Any:  # noqa: ANN401 - a table of pyarrow's
            time.sleep(PART_S)
            return super().__call__(batch)

    class SleepingEngine(RayEngine):
        def _purify_actor(self) -> type[Any]:
            return Sleeping

    return SleepingEngine(config, output, fingerprint)


# --- the classifier ------------------------------------------------------------------------------------


@contextmanager
def serving(seconds: float, rate_per_s: float | None = None) -> Iterator[str]:
    """A classifier in a process of its own that sleeps over each request; gives its URL.

    Args:
        seconds: How long.
        rate_per_s: Requests a second that it answers; more get 429 and Retry-After. None for any number.
    """
    context = multiprocessing.get_context("spawn")
    ready = context.SimpleQueue()
    process = context.Process(target=_serve, args=(seconds, rate_per_s, ready), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ready.get()}/"
    finally:
        process.terminate()
        process.join()


def _serve(seconds: float, rate_per_s: float | None, ready: Any) -> None:  # noqa: ANN401 - multiprocessing's
    allowed_at, lock = time.monotonic(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            nonlocal allowed_at
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                is_allowed = rate_per_s is None or time.monotonic() >= allowed_at
                if rate_per_s is not None and is_allowed:
                    allowed_at = max(allowed_at, time.monotonic() - 1 / rate_per_s) + 1 / rate_per_s
            if not is_allowed:
                self._reply(429, b"{}", {"Retry-After": "1"})
                return
            time.sleep(seconds)
            count = len(np.load(io.BytesIO(body), allow_pickle=False))
            self._reply(200, json.dumps({"classes": [0] * count}).encode(), {"Content-Type": "application/json"})

        def _reply(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ready.put(server.server_address[1])
    server.serve_forever()
