"""One HTML page of what a run came to: nothing is loaded from elsewhere, and nothing in it can run but its own script.

Values come from tars and servers that may be hostile: the template escapes all of them, what can't be printed is
spelled out, and the page's own policy allows the one script and the one style by their digests.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from pipeline.alert import Alert
from pipeline.progress import counts, duration, rate_of, size_of
from pipeline.report import charts, flips
from pipeline.report.gallery import AMPLIFIED, Pictures, Spot
from pipeline.report.runs import Run
from pipeline.report.samples import Samples
from pipeline.report.scan import Scan
from pipeline.verdict import verdict
from zipstage import __version__

MAX_REASONS = 100
"""Shards named with what went wrong with them."""

MAX_TEXT = 400


@dataclass(frozen=True, slots=True)
class Contents:
    """All that a page tells.

    Args:
        run: The run; without a name where none left word.
        output: Where it wrote, as people name it.
        made_with: `settings.json` of the output.
        classifier: The folder of the predictions; none: nobody was asked.
        shards: Committed shards that the page is about.
        committed: All committed there.
        is_of_all: Whether it is about all of them, or about what the run did.
        found: What their rows come to.
        alert: What the flips of these rows come to; none: not looked at.
        samples: Those that are shown.
        pictures: Of some of them, by shard and index.
    """

    run: Run
    output: str
    made_with: dict[str, Any]
    classifier: str | None
    shards: int
    committed: int
    is_of_all: bool
    found: Scan
    alert: Alert | None
    samples: Samples
    pictures: Mapping[Spot, Pictures]

    @property
    def alerts(self) -> list[Alert]:
        """The run's own look, over all shards that it was about, then that at the page's rows where it says more."""
        looks = (self.alert, self.run.alert) if self.is_of_all else (self.run.alert, self.alert)
        found: list[Alert] = []
        for look in looks:
            found += [look] if look is not None and look not in found else []
        return found


def render(contents: Contents) -> str:
    """The page."""
    style, script = _asset("report.css"), _asset("report.js")
    labels = (contents.run.config.get("classifier") or {}).get("labels") or ()
    classes = flips.by_class(contents.found, labels)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            c=contents,
            run=contents.run,
            found=contents.found,
            summary=contents.run.summary,
            timeline=contents.run.timeline,
            verdict=verdict(contents.run.to_summary()) if contents.run.summary else "",
            state=_state(contents.run.summary),
            speed=_images_per_s(contents.run),
            lanes=charts.lanes(contents.run.timeline),
            marks=charts.time_marks(contents.run.timeline),
            lane_size=(charts.WIDTH, charts.LANE),
            steps=charts.steps_of_suspicion(contents.found),
            classes=classes[: flips.MAX_CLASSES],
            num_classes=len(classes),
            open_classes=flips.OPEN_CLASSES,
            median_share=flips.median_share(classes),
            settings=list(flattened(contents.run.config)),
            made_with=list(flattened(contents.made_with)),
            class_title=lambda index: flips.class_title(index, labels),
            amplified=AMPLIFIED,
            max_reasons=MAX_REASONS,
            version=__version__,
            style=Markup(style),  # our own files, which no value gets into
            script=Markup(script),
            style_digest=_digest(style),
            script_digest=_digest(script),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline.report", "page"),
        autoescape=select_autoescape(enabled_extensions=("html.j2",), default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "plain": plain,
        "duration": duration,
        "rate": rate_of,
        "size": size_of,
        "counts": counts,
        "number": lambda value: f"{value:,}",
        "percent": lambda value: f"{value:.1%}" if 0 < value < 0.1 else f"{value:.0%}",
    }
    return environment


@cache
def _asset(name: str) -> str:
    return (files("pipeline.report") / "page" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Of an inline style or script, as a content security policy names it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def plain(value: Any, most: int = MAX_TEXT) -> str:  # noqa: ANN401 - whatever a row holds
    """A value as one can read it: what can't be printed is spelled out, what is long is cut.

    A character that turns the direction of writing makes a key read as another one; it can't be printed either.
    """
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(value)[: most + 1])
    return text if len(text) <= most else f"{text[:most]}..."


def flattened(values: Any, above: str = "") -> Iterator[tuple[str, str]]:  # noqa: ANN401 - a JSON value
    """Settings by dotted names; what is not set is left out."""
    if isinstance(values, dict) and values:
        for name, value in values.items():
            yield from flattened(value, f"{above}.{name}" if above else str(name))
    elif values is not None and values not in ({}, []):
        shown = ", ".join(map(str, values)) if isinstance(values, list) else values
        yield above, str(shown).lower() if isinstance(values, bool) else str(shown)


def _state(summary: dict[str, Any]) -> str:
    """How a run ended, in one word that the style knows."""
    code = summary.get("exit_code")
    return {None: "unknown", 0: "good", 3: "alert", 75: "later", 130: "later"}.get(code, "bad")


def _images_per_s(run: Run) -> float | None:
    """From when the graph was up until its last part, as the closing table of a run has it."""
    images = sum((run.timeline.get("stages") or {}).get("purify") or [])
    started_s, last_s = run.timeline.get("started_s"), run.timeline.get("last_part_s")
    if started_s is None or last_s is None or last_s <= started_s:
        return None
    return float(images) / (float(last_s) - float(started_s))
