"""The pictures of an evaluation: frontiers of all defences, and curves of a swept setting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure  # of the extra `plots`; no window, no global state

from jobs.evaluate.config import SweepConfig
from jobs.evaluate.means import mean_excess, mean_pa
from jobs.evaluate.run import Cell
from jobs.evaluate.victims import CLEAN


def plot_frontiers(cells: Sequence[Cell], work: Path) -> None:
    """Mean PA against mean excess ASR, `frontier.png`, and against network calls, `calls.png`."""
    if not cells:
        return
    _plot_defences(cells, work / "frontier.png", lambda row: 100 * mean_excess(row), "mean excess ASR, points")
    _plot_defences(cells, work / "calls.png", lambda row: row[0].calls, "network calls for an image")


def plot_sweep(cells: Sequence[Cell], sweep: SweepConfig, work: Path) -> None:
    """ASR and PA of each attack, and CA, against the swept setting: `sweep-NAME.png`."""
    names = [defence.name for defence in sweep.defences]
    groups = _by_victims([cell for cell in cells if cell.defence in names])
    figure = Figure(figsize=(11, 4 * len(groups)), layout="constrained")
    for (title, group), (left, right) in zip(groups, figure.subplots(len(groups), 2, squeeze=False), strict=True):
        for attack in dict.fromkeys(cell.attack for cell in group):
            row = [next(cell for cell in group if (cell.attack, cell.defence) == (attack, name)) for name in names]
            outcomes = [cell.outcome for cell in row]
            if attack == CLEAN:
                right.plot(sweep.values, [100 * o.ca.value for o in outcomes], "k--", label="CA, no backdoor")
                continue
            left.plot(sweep.values, [100 * o.excess.value for o in outcomes if o.excess], "o-", label=attack)
            right.plot(sweep.values, [100 * o.pa.value for o in outcomes if o.pa], "o-", label=attack)
        _label(left, title, sweep.setting, "excess ASR, points")
        _label(right, title, sweep.setting, "PA, percent")
    figure.savefig(work / f"sweep-{sweep.name}.png", dpi=110)


def _plot_defences(cells: Sequence[Cell], path: Path, of: Callable[[list[Cell]], float], label: str) -> None:
    groups = _by_victims(cells)
    figure = Figure(figsize=(6 * len(groups), 5), layout="constrained")
    for (title, group), axes in zip(groups, figure.subplots(1, len(groups), squeeze=False)[0], strict=True):
        for row in _rows(group):
            x, y = of(row), 100 * mean_pa(row)
            axes.plot(x, y, "o")
            axes.annotate(row[0].defence, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
        axes.set(xlabel=label, ylabel="mean PA, percent", title=title)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def _by_victims(cells: Sequence[Cell]) -> list[tuple[str, list[Cell]]]:
    return [(", ".join(key), list(group)) for key, group in groupby(cells, key=lambda cell: (cell.set, cell.recipe))]


def _rows(cells: Sequence[Cell]) -> Iterator[list[Cell]]:
    for defence in dict.fromkeys(cell.defence for cell in cells):
        yield [cell for cell in cells if cell.defence == defence and cell.attack != CLEAN]


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
