"""`zipstage demo`: the whole stage on one machine, against a classifier that has a backdoor.

    draw       images of traffic signs; half of them get one of two triggers
    serve      the backdoored classifier, by the Open Inference Protocol
    purify     the real job, on these shards, with that classifier
    tell       CA, ASR and PA as received and purified; a picture of three samples

All of it lies under one folder, named for its settings: run again, and only what is missing is done.
Takes 1 to 3 minutes on two cores, a quarter minute of it Ray's start.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from jobs.damaged import damaged, pixels_of
from jobs.demo.delivery import key_of, shard_name, write_shards
from jobs.demo.drawing import CLASS_NAMES, SIZE
from jobs.demo.outcome import Answered, as_table, measure, num_purified, read_answers
from jobs.demo.poison import CLEAN, TARGET, TRIGGERS, Incoming, incoming
from jobs.demo.victim import MEAN, MODEL_PATH, STD
from jobs.members import member_of
from jobs.picture import Panel, side_by_side
from jobs.serve import application, load_network, running
from pipeline.config import JobConfig
from pipeline.config_loading import load_config, nest
from pipeline.errors import ALERT
from pipeline.facts import Summary, Watch
from pipeline.job import EngineOf, purify
from zipstage.purifiers import build
from zipstage.purifiers.restore import RestorePurifier

CLASSIFIER = "signs"
NUM_SHARDS = 4

LEGEND = f"""\
CA   clean images that are answered with their class
ASR  images with a trigger that are answered {CLASS_NAMES[TARGET]!r}, as the attacker wants
PA   images with a trigger that are answered with their true class
ASR and PA leave out images of {CLASS_NAMES[TARGET]!r}. In brackets: 95 % Wilson intervals."""


@dataclass(frozen=True, slots=True)
class Demo:
    """What is drawn, and how it is purified.

    Args:
        folder: Where all of it goes; made when it isn't there.
        images: Images to draw: half of them clean, a quarter with each trigger.
        seed: Of the drawing.
        method: The purifier's.
        preset: Its settings.
    """

    folder: Path = Path("demo-out")
    images: int = 2_000
    seed: int = 0
    method: str = "restore"
    preset: str = "default"

    @property
    def incoming(self) -> Path:
        return self.folder / f"incoming-{self.images}-seed{self.seed}"

    @property
    def purified(self) -> Path:
        return self.folder / f"purified-{self.images}-seed{self.seed}-{self.method}-{self.preset}"

    @property
    def picture(self) -> Path:
        return self.purified.with_suffix(".png")

    def job(self, url: str) -> JobConfig:
        """The job that a user would write for a classifier at `url`."""
        values = {
            "input": str(self.incoming),
            "output": str(self.purified),
            "purifier.method": self.method,
            "purifier.preset": self.preset,
            "classifier.protocol": "open-inference-v2",
            "classifier.url": url,
            "classifier.model": CLASSIFIER,
            "classifier.name": CLASSIFIER,
            "classifier.input": {"size": SIZE, "layout": "NCHW", "mean": [MEAN], "std": [STD]},
        }
        return load_config(None, nest(values))


def run(demo: Demo, watch: Watch, console: Console, engine_of: EngineOf | None = None) -> int:
    """Run the demo and say how it went; gives the exit code of its job.

    Args:
        demo: What to do.
        watch: Told each fact of the job.
        console: Where the table goes.
        engine_of: Makes the engine of the job; none: Ray.
    """
    shares = " and ".join(f"a quarter with a {trigger}" for trigger in TRIGGERS)
    console.print(f"drawing {demo.images:,} signs, {shares}")
    received = incoming(demo.images, demo.seed)
    write_shards(received, demo.incoming, NUM_SHARDS)
    with running(application(load_network(str(MODEL_PATH)), CLASSIFIER)) as url:
        job = demo.job(url)
        console.print(f"serving the backdoored classifier at {url}")
        console.print(f"purifying {demo.incoming}", soft_wrap=True)
        summary = purify(job, watch, engine_of)
    if summary.exit_code not in (0, ALERT):
        _tell_failure(summary, console)
        return summary.exit_code
    answered = read_answers(demo.purified, CLASSIFIER, demo.images)
    console.print(f"{num_purified(demo.purified):,} of {demo.images:,} images purified")
    if summary.alert is not None:
        console.print(f"alert {'fired' if summary.alert.fired else 'quiet'}: {summary.alert.words}", highlight=False)
    console.print(as_table(list(measure(received, answered))))
    console.print(LEGEND, highlight=False)
    side_by_side(list(_rows(demo, job, received, answered))).save(demo.picture)
    console.print(f"\npicture   {demo.picture}\npurified  {demo.purified}", highlight=False, soft_wrap=True)
    return 0


def _tell_failure(summary: Summary, console: Console) -> None:
    for shard, reason in {**summary.failed, **summary.unanswered}.items():
        console.print(f"{shard}: {reason}", highlight=False, markup=False, soft_wrap=True)


def _rows(demo: Demo, job: JobConfig, received: Incoming, answered: Answered) -> Iterator[tuple[str, list[Panel]]]:
    """One row of the picture for a clean image and for each trigger: the first that doesn't show the target."""
    purifier = build(job.purifier.settings())
    for kind in (CLEAN, *TRIGGERS):
        index = int(np.flatnonzero((received.triggers == kind) & (received.labels != TARGET))[0])
        name, key = shard_name(index, demo.images, NUM_SHARDS), f"{key_of(index)}.png"
        before, after = (member_of(folder / name, key) for folder in (demo.incoming, demo.purified / "shards"))
        truth = int(received.labels[index])
        panels = [_answered("received", pixels_of(before), int(answered.before[index]), truth)]
        if isinstance(purifier, RestorePurifier):
            panels.append(
                Panel(
                    damaged(purifier, before, job.purifier.seed_bytes()), "damaged on purpose", "what the network gets"
                )
            )
        panels.append(_answered("purified", pixels_of(after), int(answered.after[index]), truth))
        yield f"{kind}: {CLASS_NAMES[truth]!r}", panels


def _answered(title: str, pixels: np.ndarray, answer: int, truth: int) -> Panel:
    said = f"answer: {CLASS_NAMES[answer]!r}" if answer >= 0 else "no answer"
    return Panel(pixels, title, said, is_wrong=answer != truth)
