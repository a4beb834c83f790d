from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from inprocess import InProcess
from inverting import Inverting
from making import job, picture, samples, write_tar
from storing import write_classifier

from pipeline import job as main_path
from pipeline import metrics
from pipeline.answers import Asking
from pipeline.classifiers.base import Answers
from pipeline.classifiers.gate import Gate
from pipeline.errors import ClassifierAwayError, ClassifierError, SpentError
from pipeline.facts import Failed, Planned, Started
from pipeline.metrics import METRICS, Metric, PurifierClock
from pipeline.parts import Outcome, SampleStatus
from pipeline.run_metrics import RunMetrics
from zipstage.tiles import pack

ROOT = Path(__file__).parents[3]
DASHBOARD = json.loads((ROOT / "infra/grafana/zipstage.json").read_text())


class Recorder:
    """Stands for Ray's metrics: what was counted, by name and tags, each checked against the catalogue."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[tuple[str, ...], float]] = defaultdict(lambda: defaultdict(float))

    def made(self, name: str) -> Any:
        metric, counts = METRICS[name], self.counts[name]

        class Made:
            def _record(self, value: float, tags: dict[str, str]) -> None:
                assert set(tags) == set(metric.tag_keys), (name, tags)
                for tag, value_of_tag in tags.items():
                    assert tag == "run" or value_of_tag in metric.tags[tag], (name, tags)
                counts[tuple(tags[tag] for tag in metric.tag_keys)] += value

            inc = set = observe = _record

        return Made()

    def __getitem__(self, name: str) -> dict[tuple[str, ...], float]:
        """What isn't 0."""
        return {tags: value for tags, value in self.counts[f"zipstage_{name}"].items() if value}


@pytest.fixture
def on_ray(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(metrics, "_is_on_ray", lambda: True)
    monkeypatch.setattr(metrics, "_made", recorder.made)
    monkeypatch.setattr(metrics, "suppress", lambda _: Strict())  # what the recorder finds wrong is a failure here
    return recorder


class Strict:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the module sees; tests move them."""
    now = [100.0]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now[0])
    return now


# --- the catalogue -----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", list(METRICS.values()), ids=list(METRICS))
def test_names_follow_prometheus(metric: Metric) -> None:
    assert re.fullmatch(r"zipstage_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert not re.search(r"milli|_ms|minutes|_mib|_kib|percent", metric.name)
    assert not {"key", "shard", "name", "error"} & set(metric.tags)
    for values in metric.tags.values():
        assert 1 < len(values) == len(set(values)) <= 12


def test_tags_have_the_values_that_there_are() -> None:
    assert set(metrics.STATUSES) == set(get_args(SampleStatus))
    assert set(metrics.OUTCOMES) == set(get_args(Outcome))


def test_the_page_lists_just_what_is_counted() -> None:
    page = (ROOT / "docs/watching.md").read_text()
    listed = {}
    for line in page.splitlines():
        if line.startswith("| `zipstage_"):
            name, kind, tags, _ = (cell.strip() for cell in line.strip("|").split("|"))
            listed[name.strip("`")] = (kind, set(re.findall(r"`(\w+)`", tags)))
    assert listed == {metric.name: (metric.kind, set(metric.tag_keys)) for metric in METRICS.values()}


def expressions() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


@pytest.mark.parametrize(("title", "expression"), list(expressions()))
def test_the_dashboard_asks_for_what_is_counted(title: str, expression: str) -> None:
    names = re.findall(r"ray_(zipstage_\w+?)(?:_bucket|_count)?\b", expression)
    assert names
    assert not re.search(r"zipstage_\w+_sum\b", expression)  # Ray makes it up
    tags = {tag for name in names for tag in METRICS[name].tag_keys} | {"le"}
    asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression))
    asked |= {tag for by in re.findall(r"by \(([^)]*)\)", expression) for tag in by.replace(" ", "").split(",")}
    assert asked <= tags
    for metric, matched in re.findall(r'(\w+)(?:=|!=)"(\w[^"$]*)"', expression):
        assert any(matched in METRICS[name].tags.get(metric, ()) for name in names)
    if any(METRICS[name].by == "driver" for name in names):
        assert 'run=~"$run"' in expression


def test_each_panel_says_what_it_shows_in_which_unit() -> None:
    shown = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    for panel in shown:
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Progress", "Throughput by stage", "Purifiers", "Queries", "Flips", "Errors"]
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "run"]


def test_panels_do_not_overlap_and_stay_on_the_grid() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert all(x < 24 for x, _ in cells)
        taken |= cells


# --- outside of Ray ----------------------------------------------------------------------------------


def test_where_there_is_no_ray_nothing_is_made_and_nothing_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"made {name}")

    monkeypatch.setattr(metrics, "_made", refuse)
    monkeypatch.setattr(metrics, "suppress", lambda _: Strict())
    monkeypatch.delitem(metrics.sys.modules, "ray", raising=False)
    metrics.add("zipstage_flips_total", 3, run="night")
    metrics.show("zipstage_purifiers", 2, run="night")
    metrics.announce("zipstage_queries_total")
    with metrics.took("stage"):
        pass
    assert list(metrics.timed("read", [1, 2])) == [1, 2]


def test_a_count_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("Ray is gone")

    monkeypatch.setattr(metrics, "_is_on_ray", lambda: True)
    monkeypatch.setattr(metrics, "_made", broken)
    write_tar(tmp_path / "in/a.tar", samples(3))
    assert main_path.purify(job(tmp_path), lambda fact: None, InProcess).exit_code == 0


def test_a_purifier_that_cannot_be_counted_works_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Inverting):
        @property
        def calls(self) -> int:  # type: ignore[override]
            raise RuntimeError("who knows")

    recorder = Recorder()
    monkeypatch.setattr(metrics, "_is_on_ray", lambda: True)
    monkeypatch.setattr(metrics, "_made", recorder.made)
    groups = pack([picture(1)], np.zeros((1, 2), np.uint64)).groups
    PurifierClock(Silent(), "cpu", 0).count(groups)
    assert recorder["cells_total"] == {("32",): 1}
    assert recorder["network_calls_total"] == {}


# --- what is counted ---------------------------------------------------------------------------------


def test_a_run_counts_what_its_summary_says(on_ray: Recorder, tmp_path: Path) -> None:
    members = [*samples(70), [("broken.png", b"no image"), ("broken.cls", b"1")]]
    write_tar(tmp_path / "in/a.tar", members)
    write_tar(tmp_path / "in/b.tar", samples(5))
    (tmp_path / "in/cut.tar").write_bytes((tmp_path / "in/a.tar").read_bytes()[:3000])
    write_classifier(tmp_path / "bright.onnx")
    classifier = {"classifier__protocol": "onnx", "classifier__path": str(tmp_path / "bright.onnx")}
    middle = {"classifier__input__mean": [0.5], "classifier__input__std": [0.5]}
    config = job(tmp_path, **classifier, **middle, part__tiles=1)
    summary = main_path.purify(config, lambda fact: None, InProcess, run="night")

    def by_tag(counts: dict[str, int]) -> dict[tuple[str, ...], float]:
        return {(value, "night"): count for value, count in counts.items()}

    assert on_ray["samples_total"] == by_tag(summary.statuses) == by_tag({"ok": 75, "undecodable": 1})
    assert on_ray["parts_total"] == by_tag(summary.parts)
    assert on_ray["answers_total"] == by_tag(summary.answers)
    assert on_ray["images_total"] == {("night",): summary.images}
    assert on_ray["flips_total"] == {("night",): summary.flipped}
    assert on_ray["shards_total"] == by_tag({"committed": 2, "answered": 2, "failed": 1})
    planned = sum(path.stat().st_size for path in (tmp_path / "in").iterdir())
    assert on_ray["planned_bytes"] == {("night",): planned}
    assert on_ray["planned_shards"] == {("night",): 3}
    received = sum((tmp_path / "in" / name).stat().st_size for name in ("a.tar", "b.tar"))
    assert on_ray["received_bytes_total"] == {("night",): received}
    written = [path for folder in ("shards", "tables") for path in (tmp_path / "out" / folder).iterdir()]
    assert on_ray["written_bytes_total"] == {("night",): sum(path.stat().st_size for path in written)}
    assert on_ray["queries_total"] == {("answered",): 2 * 75}


def test_counters_of_a_run_begin_at_zero(on_ray: Recorder) -> None:
    RunMetrics("night").note(Started("cpu", 2))
    assert on_ray.counts["zipstage_shards_total"] == {
        (outcome, "night"): 0.0 for outcome in ("committed", "failed", "answered", "unanswered")
    }


def test_shards_refused_before_there_is_a_graph_count_once_there_is(on_ray: Recorder) -> None:
    run = RunMetrics("night")
    run.note(Failed("old", "changed"))
    run.note(Planned(2, 1, 0, 10))
    assert on_ray["shards_total"] == {}
    run.note(Started("cpu", 1))
    assert on_ray["shards_total"] == {("failed", "night"): 1}


def test_what_is_done_with_an_item_is_no_time_of_reading_it(on_ray: Recorder, clock: list[float]) -> None:
    def reading() -> Iterator[int]:
        for part in range(3):
            clock[0] += 2.0
            yield part

    for _ in metrics.timed("read", reading()):
        clock[0] += 50.0
    assert on_ray["stage_seconds_total"] == {("read",): 6.0}


def test_seconds_count_when_the_block_fails_as_well(on_ray: Recorder, clock: list[float]) -> None:
    @metrics.took("commit")
    def fail() -> None:
        clock[0] += 3.0
        raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert on_ray["stage_seconds_total"] == {("commit",): 3.0}


def test_a_purifier_is_busy_or_waits(on_ray: Recorder, clock: list[float]) -> None:
    of_purifier = PurifierClock(Inverting(), "cpu", 0)
    for waiting, working in ((5.0, 2.0), (1.0, 4.0)):
        clock[0] += waiting
        with of_purifier.busy():
            clock[0] += working
    assert on_ray["purifier_seconds_total"] == {("idle",): 6.0, ("busy",): 6.0}
    assert on_ray["stage_seconds_total"] == {("purify",): 6.0}


def test_cells_tiles_and_network_calls_are_those_of_the_plan(on_ray: Recorder) -> None:
    pictures = [picture(i) for i in range(70)] + [picture(1, 100, 100)]
    groups = pack(pictures, np.zeros((71, 2), np.uint64)).groups
    PurifierClock(Inverting(), "cpu", 0).count(groups)
    assert on_ray["cells_total"] == {("32",): 70, ("128",): 1}
    assert on_ray["tiles_total"] == {(): 2 + 1}  # 64 cells of 32 px lie in a tile
    assert on_ray["network_calls_total"] == {(): 3 + 1}  # 32 of them in a call


class Scripted:
    """A classifier that answers, refuses or is away."""

    max_batch = 8

    def __init__(self, error: Exception | None, errors: list[str | None] | None = None) -> None:
        self.error, self.errors = error, errors

    async def predict(self, images: np.ndarray) -> Answers:
        if self.error is not None:
            raise self.error
        return Answers(np.zeros(len(images), int), None, self.errors or [None] * len(images))


@pytest.mark.parametrize(
    ("classifier", "counted"),
    [
        (Scripted(None), {("answered",): 2}),
        (Scripted(ClassifierAwayError("away")), {("away",): 2}),
        (Scripted(SpentError("spent")), {}),
    ],
)
def test_queries_count_by_what_came_of_them(
    classifier: Scripted, counted: dict[Any, Any], on_ray: Recorder, tmp_path: Path
) -> None:
    config = job(tmp_path, classifier__protocol="open-inference-v2", classifier__url="http://x", classifier__model="m")
    assert config.classifier is not None
    asking = Asking(classifier, config.classifier, Gate())  # type: ignore[arg-type]
    with suppress(ClassifierError):
        asyncio.run(asking.ask([picture(1), picture(2)]))
    assert on_ray["queries_total"] == counted


def test_a_refused_picture_counts_as_refused(on_ray: Recorder, tmp_path: Path) -> None:
    config = job(tmp_path, classifier__protocol="open-inference-v2", classifier__url="http://x", classifier__model="m")
    assert config.classifier is not None
    asking = Asking(Scripted(None, [None, "too dark"]), config.classifier, Gate())  # type: ignore[arg-type]
    asyncio.run(asking.ask([picture(1), picture(2)]))
    assert on_ray["queries_total"] == {("answered",): 1, ("refused",): 1}
