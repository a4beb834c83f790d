"""The page on configuration says all, says it as the models do, and each of its examples is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.arguments import flags
from jobs.evaluate.config import (
    AdaptiveConfig,
    AttackConfig,
    DefenceConfig,
    EvaluationConfig,
    RecipeConfig,
    SweepConfig,
    load_evaluation,
)
from jobs.reference import PAGE, page
from jobs.training_config import TrainingConfig, load_training_config
from pipeline.config import JobConfig
from pipeline.config_loading import load_config
from pipeline.protocols import PROTOCOLS
from zipstage.evaluation.attacks import ATTACKS
from zipstage.purifiers.settings import METHODS

CONFIGS = sorted((Path(__file__).parents[3] / "jobs/configs").rglob("*.yaml"))
TEXT = page()
EXAMPLES = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)]
PARTS = {
    "attacks": AttackConfig,
    "recipes": RecipeConfig,
    "defences": DefenceConfig,
    "sweeps": SweepConfig,
    "adaptive": AdaptiveConfig,
}


def test_the_page_is_the_one_that_the_models_make() -> None:
    assert PAGE.read_text(encoding="utf-8") == TEXT, "docs/configuration.md is not up to date: python -m jobs.reference"


def test_each_field_has_its_line_and_says_what_it_does() -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("|")]
    fields = [row for row in rows if len(row) == 5 and row[0].startswith(("`", "[`"))]
    assert [row[0] for row in fields if not row[4]] == []
    names = {row[0].strip("[").split("`")[1] for row in fields}
    assert {flag.rpartition(".")[2] for flag in flags()} <= names


def test_each_variant_has_its_section() -> None:
    for kind, table in (("Method", METHODS), ("Protocol", PROTOCOLS), ("Attack", ATTACKS)):
        assert [name for name in table if f"\n#### {kind} `{name}`\n" not in TEXT] == []


def test_there_is_an_example_of_each_variant() -> None:
    assert {example["purifier"]["method"] for example in EXAMPLES if "purifier" in example} >= set(METHODS)
    assert {example["classifier"]["protocol"] for example in EXAMPLES if "classifier" in example} >= set(PROTOCOLS)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: "-".join(example))
def test_each_example_is_a_config(example: dict[str, Any]) -> None:
    if "sets" in example:
        EvaluationConfig.model_validate(example)
    elif "data" in example:
        TrainingConfig.model_validate(example)
    elif (part := PARTS.get(next(iter(example)))) is not None:
        for each in example[next(iter(example))]:
            part.model_validate(each)
    elif isinstance(example.get("input"), dict):
        JobConfig.model_validate(
            {"input": "in", "output": "out", "classifier": {"protocol": "onnx", "path": "m.onnx", **example}}
        )
    else:
        job = JobConfig.model_validate({"input": "in", "output": "out", **example})
        if list(example) == ["purifier"] and job.purifier.method != "chain":
            assert job.purifier.settings() == METHODS[job.purifier.method].presets["default"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_shipped_config_loads(path: Path) -> None:
    """What a file is, its name or its first field says; a new one that is nothing of these fails here."""
    if path.stem.startswith("evaluate-"):
        assert load_evaluation(path).sets
    elif path.stem.startswith("prior-"):
        assert load_training_config(path).data
    else:
        classifier_alone = {"input": ["in"], "output": "out"} if path.parent.name == "classifiers" else {}
        date = {"ZIPSTAGE_DATE": "2026-11-20"} if "{date}" in path.read_text() else {}
        job = load_config(path, classifier_alone, date)
        assert job.classifier is not None
