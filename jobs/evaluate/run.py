"""The evaluation's main path: victims, attacked sets, the real `purify` over them, answers, figures.

All of it lies below one work folder, and what is there is not done again:

    victims/SET-RECIPE-ATTACK.safetensors
    attacked/SET/TRIGGER/000.tar            the test images with each trigger, and clean
    purified/SET/DEFENCE-seed0/             an output of `zipstage purify`, triggers as folders
    answers/*.npz                           what each victim said
    sheets/SET-DEFENCE.png                  a few images of each trigger, for people
    results.json, table.md, *.png           what came of it
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jobs.evaluate.adaptive import Adapted, adapted
from jobs.evaluate.answers import RECEIVED, purified_at, scores_of
from jobs.evaluate.config import DefenceConfig, EvaluationConfig, RecipeConfig, SetConfig
from jobs.evaluate.hidden import Hidden, hidden_by
from jobs.evaluate.paired import Compared, compared
from jobs.evaluate.sets import Labelled, read_set, write_set
from jobs.evaluate.sheets import draw_sheets
from jobs.evaluate.suspicion import Seen, Told, seen_of, told_by
from jobs.evaluate.victims import CLEAN, Tell, triggered, victims_of
from pipeline.config import JobConfig
from pipeline.config_loading import load_config, nest
from pipeline.errors import ShardError
from pipeline.job import EngineOf, purify
from zipstage.evaluation.outcome import Answers, Outcome, outcome_of
from zipstage.evaluation.victims import Victim
from zipstage.purifiers import build
from zipstage.purifiers.settings import settings_for


@dataclass(frozen=True, slots=True)
class Cell:
    """One entry of the table.

    Args:
        set, recipe, attack: Whose victim; `clean` is the one without a backdoor.
        defence: What purified.
        calls: Network calls for one image.
        images, seeds: How many of each.
        outcome: The figures.
    """

    set: str
    recipe: str
    attack: str
    defence: str
    calls: int
    images: int
    seeds: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Where an evaluation reads and writes.

    Args:
        config: What is compared.
        data: Folder that holds the sets.
        work: Folder for all that is made.
        victims: Folder for victims; they may be shared by evaluations.
        overrides: Dotted fields of the job, for the cluster above all.
    """

    config: EvaluationConfig
    data: Path
    work: Path
    victims: Path
    overrides: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Findings:
    """What an evaluation found.

    Args:
        cells: The table's entries.
        hidden: What each defence hides of triggered and of clean images.
        told: How well triggered images can be told from clean ones under each defence.
        compared: The first defence against each of the others, image by image.
        adapted: How attackers fared who know the defence.
    """

    cells: list[Cell]
    hidden: list[Hidden]
    told: list[Told]
    compared: list[Compared]
    adapted: list[Adapted]


def evaluate(evaluation: Evaluation, tell: Tell, engine_of: EngineOf | None = None, device: str = "cpu") -> Findings:
    """Run what is missing of an evaluation, draw its sheets, and give its figures.

    Args:
        evaluation: What and where.
        tell: Told what is done.
        engine_of: Makes the engine of each job; none: Ray.
        device: Where victims are trained and answer.

    Raises:
        ConfigError: Data is missing, or what lies in the work folder was made otherwise.
        ShardError: A job could not purify all images.
    """
    config, work = evaluation.config, evaluation.work
    cells: list[Cell] = []
    pairs: list[Compared] = []
    hidden: list[Hidden] = []
    seen: dict[str, list[Seen]] = {defence.name: [] for defence in config.defences}
    for one in config.sets:
        test = read_set(evaluation.data, one.test, one.images, one.skip, one.size)
        _write_attacked(evaluation, one, test)
        for defence, seed in _runs(config):
            _purify(evaluation, one, defence, seed, tell, engine_of)
        jobs = {each.name: _job(evaluation, one, each, config.seeds_of(each)[0]) for each in config.defences}
        draw_sheets(config, work, one, jobs)
        for defence in config.defences:
            hidden += hidden_by(one, defence, test.images, device)
        for recipe in one.recipes:
            victims = victims_of(one, recipe, evaluation.data, evaluation.victims, tell, device)
            cells += _judge(evaluation, one, recipe, victims, test, tell)
            pairs += compared(config, work, one, recipe, victims, test)
            for defence in config.defences:
                seen[defence.name] += seen_of(config, work, one, recipe, defence, victims, test)
    told = [each for name, of_defence in seen.items() for each in told_by(name, of_defence)]
    attackers = list(adapted(config, evaluation.data, work, evaluation.victims, tell))
    return Findings(cells, hidden, told, pairs, attackers)


def _runs(config: EvaluationConfig) -> Iterator[tuple[DefenceConfig, int]]:
    """Each defence with each of its seeds, the images as received first."""
    for defence in (RECEIVED, *config.all_defences):
        for seed in config.seeds_of(defence):
            yield defence, seed


def _write_attacked(evaluation: Evaluation, one: SetConfig, test: Labelled) -> None:
    folder, size = evaluation.work / "attacked" / one.name, evaluation.config.shard_images
    facts: dict[str, object] = one.model_dump(mode="json", include={"test", "images", "skip", "size"})
    folder.mkdir(parents=True, exist_ok=True)
    write_set(test, folder / CLEAN, size, facts)
    for attack in one.attacks:
        about = facts | attack.model_dump(mode="json", include={"attack", "parameters"})
        write_set(Labelled(triggered(attack, test.images), test.labels), folder / attack.name, size, about)


# --- purified sets --------------------------------------------------------------------------------


def _purify(
    evaluation: Evaluation, one: SetConfig, defence: DefenceConfig, seed: int, tell: Tell, engine_of: EngineOf | None
) -> None:
    """Run the real job over all triggers of a set; one that is done finds nothing to do, and starts no cluster."""
    output = purified_at(evaluation.work, one, defence, seed)
    tell(f"{one.name}: purifying with {defence.name}, seed {seed}")
    summary = purify(_job(evaluation, one, defence, seed), lambda fact: None, engine_of)
    if summary.exit_code:
        reasons = [*summary.failed.values(), summary.error or "interrupted"]
        raise ShardError(f"{output}: {reasons[0]}")


def _job(evaluation: Evaluation, one: SetConfig, defence: DefenceConfig, seed: int) -> JobConfig:
    shards = -(-min(defence.images or one.images, one.images) // evaluation.config.shard_images)
    folders = ",".join([CLEAN, *(attack.name for attack in one.attacks)])
    values: dict[str, object] = {
        "input": str(evaluation.work / "attacked" / one.name / f"{{{folders}}}" / f"{{000..{shards - 1:03d}}}.tar"),
        "output": str(purified_at(evaluation.work, one, defence, seed)),
        "purifier": {"method": defence.method, "preset": defence.preset, "seed": seed, **defence.settings},
        "report": False,  # the evaluation's own table and sheets are what people look at
    }
    return load_config(None, nest(values | evaluation.overrides), {})


# --- answers --------------------------------------------------------------------------------------


def _judge(
    evaluation: Evaluation,
    one: SetConfig,
    recipe: RecipeConfig,
    victims: dict[str, Victim],
    test: Labelled,
    tell: Tell,
) -> Iterator[Cell]:
    """Ask each victim about its own images under each defence."""
    received = {name: _answers(evaluation, one, recipe, RECEIVED, (0,), victims, name) for name in victims}
    for defence in (RECEIVED, *evaluation.config.all_defences):
        seeds = evaluation.config.seeds_of(defence)
        tell(f"{one.name}, {recipe.name}: asking the victims about {defence.name}")
        calls = build(settings_for(defence.method, defence.preset, defence.settings)).calls
        for name in victims:
            answers = _answers(evaluation, one, recipe, defence, seeds, victims, name)
            images = answers.clean.shape[1]
            outcome = outcome_of(test.labels[:images], recipe.target, answers, received[name].first(images))
            yield Cell(one.name, recipe.name, name, defence.name, calls, images, len(seeds), outcome)


def _answers(
    evaluation: Evaluation,
    one: SetConfig,
    recipe: RecipeConfig,
    defence: DefenceConfig,
    seeds: tuple[int, ...],
    victims: dict[str, Victim],
    name: str,
) -> Answers:
    clean, with_trigger = [], []
    for seed in seeds:
        said = scores_of(evaluation.config, evaluation.work, one, recipe, defence, seed, victims)
        clean.append(said[f"{name}/{CLEAN}"].argmax(1))
        if name != CLEAN:
            with_trigger.append(said[f"{name}/{name}"].argmax(1))
    return Answers(np.stack(clean), np.stack(with_trigger) if with_trigger else None)
