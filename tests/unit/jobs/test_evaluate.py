"""`zipstage evaluate`: the whole of it on a set of a few hundred drawn images, with the job in one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from inprocess import InProcess
from PIL import Image

from jobs.commands import evaluate as command
from jobs.evaluate import run
from jobs.evaluate.config import AttackConfig, DefenceConfig, EvaluationConfig, SetConfig, load_evaluation
from jobs.evaluate.hidden import Hidden, hidden_by, hidden_table
from jobs.evaluate.report import as_markdown, write_report
from jobs.evaluate.run import Cell, Evaluation, Findings, evaluate
from jobs.evaluate.sets import Labelled, read_set, write_set
from jobs.picture import Panel, side_by_side
from pipeline.config import JobConfig
from pipeline.errors import ConfigError
from pipeline.store import Store
from zipstage.purifiers import build

CONFIGS = Path(__file__).parents[3] / "jobs/configs"
RECIPE = {"name": "small", "augmentation": "plain", "width": 4, "batch": 32, "epochs": 4, "learning_rate": 0.1}
RECIPE |= {"taught_epochs": 4, "taught_rate": 0.1}
CONFIG: dict[str, Any] = {
    "sets": [
        {
            "name": "bars",
            "train": "train",
            "test": "test",
            "images": 60,
            "recipes": [RECIPE],
            "attacks": [{"name": "square", "poisoned": 0.2, "parameters": {"edge": 8, "row": 0.5, "column": 0.5}},
                        {"name": "red", "attack": "square", "poisoned": 0.2,
                         "parameters": {"colour": [255, 0, 0], "edge": 8, "row": 0, "column": 0}}],
        }
    ],
    "defences": [{"name": "median", "method": "median"}, {"name": "none", "method": "none", "images": 40}],
    "sweeps": [{"name": "blocks", "method": "naive", "setting": "scale", "values": [1, 8], "images": 20}],
    "adaptive": [{"name": "taught", "set": "bars", "recipe": "small", "defence": "median", "attack": "square",
                  "images": 50, "tries": 2}],
    "shard_images": 20,
}  # fmt: skip


def in_process(config: JobConfig, output: Store, fingerprint: str) -> InProcess:
    return InProcess(config, output, fingerprint, purifier=build(config.purifier.settings()))


def bars(count: int, seed: int) -> Labelled:
    """Images of three classes: stripes across, along, and none."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, count)
    axis = (np.arange(32) // 4 % 2) * 100
    kinds = np.stack([np.tile(axis[:, None], (1, 32)), np.tile(axis, (32, 1)), np.full((32, 32), 50)])
    images = kinds[labels][..., None] + generator.integers(0, 60, (count, 32, 32, 3))
    return Labelled(images.astype(np.uint8), labels.astype(np.int64))


def soft(count: int) -> np.ndarray:
    """Images without an edge."""
    seeds = np.random.default_rng(2).integers(20, 236, (count, 4, 4, 3)).astype(np.uint8)
    return np.stack([np.asarray(Image.fromarray(seed).resize((32, 32), Image.Resampling.BICUBIC)) for seed in seeds])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    write_set(bars(384, 0), folder / "data/train", 200, {})
    write_set(bars(70, 1), folder / "data/test", 50, {})
    return folder


def evaluation(place: Path, config: dict[str, Any] = CONFIG) -> Evaluation:
    return Evaluation(EvaluationConfig.model_validate(config), place / "data", place / "work", place / "victims")


@pytest.fixture(scope="module")
def findings(place: Path) -> Findings:
    torch.set_num_threads(1)
    return evaluate(evaluation(place), lambda line: None, in_process)


@pytest.fixture
def cells(findings: Findings) -> list[Cell]:
    return findings.cells


def of(cells: list[Cell], attack: str, defence: str) -> Cell:
    return next(cell for cell in cells if (cell.attack, cell.defence) == (attack, defence))


def test_each_defence_is_judged_against_each_attack_and_against_nothing(cells: list[Cell]) -> None:
    assert len(cells) == 3 * 5
    undefended = of(cells, "square", "received").outcome
    assert undefended.asr is not None
    assert undefended.asr.value > 0.9
    assert of(cells, "clean", "received").outcome.asr is None
    assert of(cells, "clean", "received").outcome.ca.value > 0.9


def test_a_defence_that_does_nothing_leaves_all_as_it_was(cells: list[Cell]) -> None:
    nothing = of(cells, "square", "none").outcome
    assert nothing.ca_lost.value == 0
    assert nothing.asr is not None
    assert nothing.asr.value > 0.9


def test_a_defence_may_be_run_on_fewer_images_and_is_paired_with_the_same_ones(cells: list[Cell]) -> None:
    assert of(cells, "square", "none").images == 40
    assert of(cells, "square", "median").images == 60


def test_the_figures_are_those_of_the_purified_shards(cells: list[Cell], place: Path) -> None:
    from zipstage.evaluation.victims import load_victim

    victim, _ = load_victim(place / "victims/bars-small-red.safetensors")
    purified = read_set(place / "work/purified/bars/median-seed0/shards", "red")
    hits = victim.scores(purified.images).argmax(1)[purified.labels != 1] == 1
    outcome = of(cells, "red", "median").outcome
    assert outcome.asr is not None
    assert outcome.asr.value == hits.mean()


def test_the_first_defence_is_compared_on_the_images_that_both_saw(findings: Findings, place: Path) -> None:
    from zipstage.evaluation.victims import load_victim

    (pair,) = findings.compared
    assert (pair.defence, pair.other) == ("median", "none")
    differences = []
    for attack in ("square", "red"):
        victim, _ = load_victim(place / f"victims/bars-small-{attack}.safetensors")
        first, other = (
            read_set(place / f"work/purified/bars/{defence}-seed0/shards", attack) for defence in ("median", "none")
        )
        others = other.labels != 1
        first_right = victim.scores(first.images[:40]).argmax(1) == first.labels[:40]
        other_right = victim.scores(other.images).argmax(1) == other.labels
        differences.append(first_right[others].mean() - other_right[others].mean())
        assert pair.images == others.sum()
    assert pair.pa.value == pytest.approx(np.mean(differences))
    assert pair.pa.low <= pair.pa.value <= pair.pa.high


def test_the_same_again_trains_and_purifies_nothing(findings: Findings, place: Path) -> None:
    def no_engine(config: JobConfig, output: Store, fingerprint: str) -> InProcess:
        raise AssertionError("purified again")

    told: list[str] = []
    assert evaluate(evaluation(place), told.append, no_engine) == findings
    assert not any("epoch" in line for line in told)


def test_a_swept_setting_changes_what_it_says(cells: list[Cell]) -> None:
    assert of(cells, "clean", "blocks-1").outcome.ca_lost.value == 0  # blocks of one pixel are the image
    assert of(cells, "clean", "blocks-8").outcome.ca_lost.value > 0.2


def test_a_victim_of_another_recipe_is_refused_and_stays(cells: list[Cell], place: Path) -> None:
    other = {**CONFIG, "sets": [{**CONFIG["sets"][0], "recipes": [{**RECIPE, "seed": 5}]}]}
    before = (place / "victims/bars-small-clean.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=r"bars-small-clean\.safetensors.*recipe"):
        evaluate(evaluation(place, other), lambda line: None, in_process)
    assert (place / "victims/bars-small-clean.safetensors").read_bytes() == before


def test_images_that_were_made_otherwise_are_refused(cells: list[Cell], place: Path) -> None:
    attacks = [{**CONFIG["sets"][0]["attacks"][0], "parameters": {"edge": 8, "row": 0.25, "column": 0.5}}]
    other = {**CONFIG, "sets": [{**CONFIG["sets"][0], "attacks": attacks}]}
    with pytest.raises(ConfigError, match=r"attacked/bars/square.*another work folder"):
        evaluate(evaluation(place, other), lambda line: None, in_process)


def test_the_report_has_a_row_for_each_defence_and_json_without_nan(findings: Findings, tmp_path: Path) -> None:
    sweeps = EvaluationConfig.model_validate(CONFIG).sweeps
    table = write_report(findings, sweeps, tmp_path, {"commit": "abc"}).read_text()
    assert "| median | 0 | 60 |" in table
    assert "commit: abc" in table
    results = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert len(results["cells"]) == 15
    assert "blocks" not in table  # it is drawn
    for picture in ("frontier.png", "calls.png", "sweep-blocks.png"):
        assert (tmp_path / picture).stat().st_size > 5_000


def test_the_report_says_how_well_triggered_images_are_told_and_at_what_threshold(
    findings: Findings, tmp_path: Path
) -> None:
    lines = write_report(findings, (), tmp_path, {}).read_text().splitlines()
    # A defence that changes nothing flips nothing: no trigger can be told by it.
    assert "| none | flip | 0.50 / 0 | 0.50 / 0 | 0.50 / 0 | 0.0 |" in lines
    assert any(line.startswith("| median | half L1 of the scores |") for line in lines)
    assert not any("residual" in line for line in lines if line.startswith("| median"))  # it has no such thing


def test_an_attacker_who_knows_the_defence_gets_a_row(findings: Findings, tmp_path: Path) -> None:
    (attacker,) = findings.adapted
    assert (attacker.name, attacker.ca.total, attacker.received_asr.value > 0.9) == ("taught", 50, True)
    # A median has no noise: to know the seed and to try again changes nothing.
    assert attacker.known_asr == attacker.asr
    assert attacker.known_missed == attacker.missed
    assert "| taught | median |" in write_report(findings, (), tmp_path, {}).read_text()


def test_what_is_hidden_is_counted_on_triggers_that_stand_in_one_place_and_on_clean_images() -> None:
    one = SetConfig(name="bars", train="", test="", attacks=(AttackConfig(name="square"), AttackConfig(name="blended")))
    images = soft(40)
    spotter = DefenceConfig(name="spotter", method="restore", settings={"draws": 1})
    clean, square = hidden_by(one, spotter, images)
    assert (clean.kind, clean.found) == ("clean", None)
    assert (square.kind, square.images) == ("square", 40)
    assert square.found is not None
    assert square.found > 0.9
    assert square.touched > clean.touched
    assert 9 / 32**2 < square.share < 1 / 4

    blind = DefenceConfig(name="blind", method="restore", settings={"spot_above": 1})
    assert [(one.kind, one.found, one.share) for one in hidden_by(one, blind, images)] == [
        ("clean", None, 0),
        ("square", 0, 0),
    ]
    assert not list(hidden_by(one, DefenceConfig(name="median", method="median"), images))


def test_the_table_of_what_is_hidden_has_a_row_for_each_set_and_defence() -> None:
    found = [
        Hidden("bars", "restore", "clean", 300, 0.125, 0.02, None),
        Hidden("bars", "restore", "square", 300, 1.0, 0.05, 0.987),
        Hidden("signs", "restore", "clean", 300, 0.3, 0.01, None),
    ]
    assert list(hidden_table(found))[2:] == [
        "| bars | restore | 300 | 12 | 2.0 | 99 |",
        "| signs | restore | 300 | 30 | 1.0 | - |",
    ]


def test_a_sheet_shows_each_trigger_with_what_became_of_it(findings: Findings, place: Path) -> None:
    with Image.open(place / "work/sheets/bars-median.png") as sheet:
        pixels = np.asarray(sheet)
    row = Panel(np.zeros((32, 32, 3), np.uint8), "", "")
    assert sheet.size == side_by_side([("", [row] * 6)] * 3, enlarge=3).size
    received = read_set(place / "work/attacked/bars", "clean").images[0]
    enlarged = received.repeat(3, 0).repeat(3, 1)
    windows = np.lib.stride_tricks.sliding_window_view(pixels[:160, :120, 0], enlarged.shape[:2])
    assert (windows == enlarged[..., 0]).all((2, 3)).any()


def test_a_sheet_is_of_the_first_seed_in_all_its_panels(
    findings: Findings, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, JobConfig] = {}
    monkeypatch.setattr(run, "draw_sheets", lambda config, work, one, jobs: drawn.update(jobs))
    two_seeds = EvaluationConfig.model_validate(
        {**CONFIG, "defences": CONFIG["defences"][:1], "sweeps": [], "adaptive": [], "seeds": [4, 7]}
    )
    evaluate(Evaluation(two_seeds, place / "data", place / "seeds", place / "victims"), lambda line: None, in_process)
    assert drawn["median"].purifier.seed_bytes() == b"4"
    assert drawn["median"].output.endswith("median-seed4")


def test_a_column_shows_pa_and_excess_of_its_attack(cells: list[Cell]) -> None:
    row = next(
        line for line in as_markdown(cells, Findings(cells, [], [], [], []), {}) if line.startswith("| received")
    )
    outcome = of(cells, "square", "received").outcome
    assert outcome.pa is not None
    assert outcome.excess is not None
    assert f"{100 * outcome.pa.value:.1f} / {100 * outcome.excess.value:.1f}" in row


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"defence": []}, "no such field 'defence'.*defences"),
        ({"defences": [{"name": "x", "method": "medain"}]}, "median"),
        ({"defences": [{"name": "x", "method": "median"}] * 2, "adaptive": []}, "x twice"),
        ({"sweeps": [{"name": "x", "method": "naive", "setting": "scael", "values": [1, 2]}]}, "scale"),
        ({"defences": [{"name": "a/b", "method": "median"}]}, "defences.0.name"),
        ({"sets": [{**CONFIG["sets"][0], "attacks": [{"name": "bad_net"}]}]}, "badnet"),
        ({"adaptive": [{**CONFIG["adaptive"][0], "defence": "medain"}]}, "adaptive.taught.defence.*median"),
        ({"adaptive": [{**CONFIG["adaptive"][0], "optimised": True}]}, "adaptive.taught.defence"),
        ({"sets": [{**CONFIG["sets"][0], "attcks": []}]}, "no such field 'sets.0.attcks'.*attacks"),
    ],
)
def test_a_config_that_is_wrong_is_told_in_a_line(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({**CONFIG, **change}))
    with pytest.raises(ConfigError, match=said):
        load_evaluation(tmp_path / "e.yaml")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("evaluate-*.yaml")), ids=lambda path: path.stem)
def test_each_evaluation_that_ships_loads(path: Path) -> None:
    assert load_evaluation(path).defences


def test_what_chooses_the_settings_shares_no_image_victim_or_trigger_with_what_judges_them() -> None:
    tuning, judging = (load_evaluation(CONFIGS / f"evaluate-{name}.yaml") for name in ("tuning", "cpu"))
    for chooses, judges in zip(tuning.sets, judging.sets, strict=True):
        assert not {chooses.train, chooses.test} & {judges.test}
        assert chooses.test.startswith(judges.train)  # a part of the training set, left out of its victims' images
        assert chooses.test not in chooses.train
        (one,), (other,) = chooses.recipes, judges.recipes
        assert one.seed != other.seed
        assert one.target != other.target
        for attack, judged in zip(chooses.attacks, judges.attacks, strict=True):
            assert attack.name == judged.name
            assert attack.parameters != judged.parameters


def test_images_of_several_sizes_are_resized_to_the_one_that_is_set(place: Path) -> None:
    assert read_set(place / "data", "test", 3, size=16).images.shape == (3, 16, 16, 3)


def test_the_command_prints_the_table(
    cells: list[Cell], place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(CONFIG))
    work, victims = place / "work", place / "victims"
    code = command.evaluate_command(tmp_path / "e.yaml", data=place / "data", work=work, victims=victims)
    assert code == 0
    assert "### bars, small" in capsys.readouterr().out
