"""An evaluation's figures for people and programs: a Markdown table and JSON. `plots` draws the pictures.

One table for each set and recipe; a row for each defence, a column for each attack. What is better
than what is for the reader to say: the means over the attacks are at the end of each row.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from jobs.evaluate.adaptive import adaptive_table
from jobs.evaluate.config import SweepConfig
from jobs.evaluate.hidden import hidden_table
from jobs.evaluate.means import mean, mean_excess, mean_pa
from jobs.evaluate.paired import paired_table
from jobs.evaluate.plots import plot_frontiers, plot_sweep
from jobs.evaluate.run import Cell, Findings
from jobs.evaluate.suspicion import suspicion_table
from jobs.evaluate.victims import CLEAN
from zipstage.evaluation.outcome import Mean

LEGEND = """\
- CA: accuracy on clean images, of the victim without a backdoor; in brackets its 95 % interval. *lost*: in points, \
against the same images as received, averaged over all victims.
- For each attack: PA / excess ASR, in percent and points. PA: accuracy on triggered images, the target's own left \
out. Excess ASR: triggered images answered with the target, less clean images of the same classes that are answered \
with it after the same purification.
- *mean*: over the attacks. *kept*: mean PA over the undefended accuracy on clean images."""


PAIRED_LEGEND = """\
{defence} less each other defence on the same images, in points: mean over the attacks, with a paired bootstrap's 95 % \
interval. Above 0, more images come back to their class (PA), or more obey the trigger (ASR)."""


HIDDEN_LEGEND = """\
What is hidden from the network, in percent: of the first images as they came, how many have anything hidden, and how \
much of them; of images with each trigger that stands in one place, in how many at least half of it is hidden."""


SUSPICION_LEGEND = """\
How well triggered images are told from clean ones: AUROC / share of triggered images above the threshold, in percent. \
The threshold is what 5 % of the clean images of all other victims with other attacks are above; what share of this \
victim's clean images is above it stands in the last column."""


ADAPTIVE_LEGEND = """\
Attackers who know the defence: every other poisoned training image went through it, and an optimised trigger was \
shaped to survive it. In the last two columns the seed is known as well, and the best of some tries is sent; excess is \
over clean images that get as many tries."""


def write_report(findings: Findings, sweeps: Sequence[SweepConfig], work: Path, facts: dict[str, object]) -> Path:
    """Write `results.json`, `table.md` and the pictures into the work folder.

    Args:
        findings: All that was measured.
        sweeps: Which of it belongs to a sweep: curves instead of rows.
        work: The folder.
        facts: How it was measured: config, versions, machine, seconds.

    Returns:
        The table's path.
    """
    cells = findings.cells
    results = {"facts": facts, **asdict(findings)}
    (work / "results.json").write_text(json.dumps(_finite(results), indent=1), encoding="utf-8")
    table = work / "table.md"
    swept = {defence.name for sweep in sweeps for defence in sweep.defences}
    rows = [cell for cell in cells if cell.defence not in swept]
    table.write_text("\n".join(as_markdown(rows, findings, facts)) + "\n", encoding="utf-8")
    plot_frontiers(rows, work)
    for sweep in sweeps:
        plot_sweep(cells, sweep, work)
    return table


def as_markdown(cells: Sequence[Cell], findings: Findings, facts: dict[str, object]) -> Iterator[str]:
    """The tables, line by line."""
    for (name, recipe), group in groupby(cells, key=lambda cell: (cell.set, cell.recipe)):
        yield from _table(f"{name}, {recipe}", list(group))
        yield ""
    yield LEGEND
    yield ""
    if findings.compared:
        yield from paired_table(findings.compared)
        yield ""
        yield PAIRED_LEGEND.format(defence=findings.compared[0].defence)
        yield ""
    if findings.hidden:
        yield from hidden_table(findings.hidden)
        yield ""
        yield HIDDEN_LEGEND
        yield ""
    if findings.told:
        yield from suspicion_table(findings.told)
        yield ""
        yield SUSPICION_LEGEND
        yield ""
    if findings.adapted:
        yield from adaptive_table(findings.adapted)
        yield ""
        yield ADAPTIVE_LEGEND
        yield ""
    yield "; ".join(f"{key}: {value}" for key, value in facts.items())


def _table(title: str, cells: list[Cell]) -> Iterator[str]:
    attacks = list(dict.fromkeys(cell.attack for cell in cells if cell.attack != CLEAN))
    rows = {cell.defence: {c.attack: c for c in cells if c.defence == cell.defence} for cell in cells}
    yield f"### {title}"
    yield ""
    yield f"| defence | calls | images | CA | lost | {' | '.join(attacks)} | mean | kept |"
    yield f"|---|--:|--:|--:|--:|{'--:|' * len(attacks)}--:|--:|"
    for defence, row in rows.items():
        clean, backdoored = row[CLEAN], [row[attack] for attack in attacks]
        lost = mean(cell.outcome.ca_lost.value for cell in row.values())
        columns = [_pair(cell.outcome.pa, cell.outcome.excess) for cell in backdoored]
        kept = mean(cell.outcome.pa_kept or 0.0 for cell in backdoored)
        images = f"{clean.images:,}" + (f" x {clean.seeds}" if clean.seeds > 1 else "")
        yield (
            f"| {defence} | {clean.calls} | {images} | {_with_interval(clean.outcome.ca)} | {100 * lost:.1f} "
            f"| {' | '.join(columns)} | {100 * mean_pa(backdoored):.1f} / {100 * mean_excess(backdoored):.1f} "
            f"| {kept:.2f} |"
        )


def _pair(pa: Mean | None, excess: Mean | None) -> str:
    return f"{100 * pa.value:.1f} / {100 * excess.value:.1f}" if pa and excess else "-"


def _with_interval(mean: Mean) -> str:
    return f"{100 * mean.value:.1f} ({100 * mean.low:.1f} to {100 * mean.high:.1f})"


def _finite(value: object) -> object:
    """The same with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
