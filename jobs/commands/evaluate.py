"""`zipstage evaluate`: how well the purifiers defend, measured on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from jobs.commands.options import Verbose, command, note, ray_kept_quiet, show

_EXAMPLE = """zipstage evaluate jobs/configs/evaluate-cpu.yaml \\
    --data data/ --work evaluation/"""

evaluate_app = command("evaluate", _EXAMPLE)


@evaluate_app.default
def evaluate_command(
    config: Annotated[Path, Parameter(help="what to compare, such as jobs/configs/evaluate-cpu.yaml")],
    *,
    data: Annotated[Path, Parameter(help="folder that holds the sets that the config names")],
    work: Annotated[Path, Parameter(help="folder for all that is made; the same again goes on")],
    victims: Annotated[
        Path | None, Parameter(help="folder of victims, trained where missing; none: WORK/victims")
    ] = None,
    device: Annotated[str, Parameter(help="where victims are trained and answer: cpu or cuda")] = "cpu",
    verbose: Verbose = False,
) -> int:
    """Measure each defence against each attack.

    Accuracy on clean images (CA), how often a trigger succeeds (ASR), accuracy on triggered images (PA), each with its
    interval. May be stopped at any moment, the same command goes on.
    """
    from jobs.evaluate.config import load_evaluation
    from jobs.evaluate.report import write_report
    from jobs.evaluate.run import Evaluation, evaluate
    from jobs.evaluate.surroundings import surroundings

    began = time.monotonic()
    evaluation = Evaluation(load_evaluation(config), data, work, victims or work / "victims")
    with ray_kept_quiet(verbose):
        findings = evaluate(evaluation, note, device=device)
    facts = {"config": config.name, "notes": evaluation.config.notes, **surroundings(began)}
    table = write_report(findings, evaluation.config.sweeps, work, facts)
    return show(table.read_text(encoding="utf-8"))
