from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jobs.arguments import flags, parse_flags, read_job
from jobs.help import USUAL, job_help
from pipeline.config import JobConfig
from pipeline.errors import ConfigError
from zipstage.errors import SettingsError
from zipstage.purifiers.settings import METHODS, settings_for

BOTH = ["--input", "in", "--output", "out"]


def job(*tokens: str, **environment: str) -> JobConfig:
    return read_job([*BOTH, *tokens], environment)


def test_input_and_output_alone_are_a_job():
    assert job().input == ("in",)
    assert job().output == "out"
    assert job().overwrite is False


def test_a_repeated_list_flag_makes_a_list_in_typed_order():
    assert job("--input", "b", "--input=c").input == ("in", "b", "c")


def test_numbers_of_a_list_may_be_typed_one_by_one_or_in_brackets():
    classifier = ["--classifier.protocol", "onnx", "--classifier.path", "m.onnx"]
    one_by_one = job(
        *classifier, *(token for mean in (".1", ".2", ".3") for token in ("--classifier.input.mean", mean))
    )
    assert one_by_one == job(*classifier, "--classifier.input.mean", "[.1, .2, .3]")


@pytest.mark.parametrize("typed", ["--part.max-mib", "--part.max_mib"])
def test_dashes_and_underscores_are_one(typed: str):
    assert job(typed, "7").part.max_mib == 7
    assert job(f"{typed}=7").part.max_mib == 7


def test_a_switch_is_on_without_a_value_and_off_with_no():
    assert job("--overwrite", "--limit", "3").overwrite is True
    assert job("--no-overwrite").overwrite is False
    assert job("--no-ask.before").ask.before is False
    assert job("--overwrite=false").overwrite is False


def test_settings_of_the_purifiers_method_are_flags_too():
    settings = job("--purifier.sigma-white", ".25", "--no-purifier.first-look").purifier.settings()
    assert (settings.sigma_white, settings.first_look) == (0.25, False)


def test_a_chain_is_typed_the_same_in_a_file_a_flag_and_the_environment(tmp_path: Path):
    steps = [{"method": "jpeg", "quality": 50}, {"method": "restore", "preset": "fast", "sigma_white": 0.2}]
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump({"purifier": {"method": "chain", "steps": steps}}))
    typed = "[{method: jpeg, quality: 50}, {method: restore, preset: fast, sigma_white: 0.2}]"
    by_file = job(str(file)).purifier.settings()
    assert by_file == job("--purifier.method", "chain", "--purifier.steps", typed).purifier.settings()
    assert by_file == job(ZIPSTAGE_PURIFIER__METHOD="chain", ZIPSTAGE_PURIFIER__STEPS=typed).purifier.settings()
    assert by_file.steps == (
        settings_for("jpeg", "default", {"quality": 50}),
        settings_for("restore", "fast", {"sigma_white": 0.2}),
    )


def test_an_unknown_method_names_the_nearest_and_all_there_are():
    with pytest.raises(SettingsError, match=r"no method 'sampdetx'\. Did you mean 'sampdetox'\?") as caught:
        job("--purifier.method", "sampdetx")
    assert all(f" {method}" in str(caught.value) for method in METHODS)


def test_help_lists_each_method_with_its_presets():
    text = " ".join(job_help("purify", "Purify.", "", "zipstage purify", everything=True).split())
    for name, method in METHODS.items():
        assert f" {name}: {', '.join(method.presets)}" in text
    assert flags()["purifier.method"].field.description == f"one of {', '.join(METHODS)}"


def test_text_stays_text_where_yaml_would_see_a_date_or_a_number():
    config = read_job(["--input", "2026", "--output", "2026-11-20", "--purifier.seed", "0012"], {})
    assert (config.input, config.output) == (("2026",), "2026-11-20")
    assert config.purifier.seed_bytes() == b"0012"


def test_a_value_may_begin_with_a_dash_after_an_equals_sign():
    assert parse_flags(["--output=--odd"]) == (None, {"output": "--odd"})


def test_a_flag_wins_over_the_environment_which_wins_over_the_file(tmp_path: Path):
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump({"input": "a", "output": "b", "limit": 1, "part": {"tiles": 2, "max_mib": 3}}))
    environment = {"ZIPSTAGE_LIMIT": "10", "ZIPSTAGE_PART__TILES": "20", "PATH": "/bin"}
    config = read_job([str(file), "--limit", "100"], environment)
    assert (config.limit, config.part.tiles, config.part.max_mib) == (100, 20, 3)


def test_the_config_file_may_stand_anywhere_among_the_flags(tmp_path: Path):
    file = tmp_path / "job.yaml"
    file.write_text("output: out")
    assert read_job(["--input", "in", str(file), "--overwrite"], {}).output == "out"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("--purifer.preset", "--purifier.preset"), ("--inptu", "--input"), ("--overwite", "--overwrite")],
)
def test_an_unknown_flag_names_the_nearest(typed: str, meant: str):
    with pytest.raises(ConfigError, match=f"{typed}: .*Did you mean '{meant}'") as caught:
        job(typed)
    assert caught.value.exit_code == 2


def test_an_unknown_setting_of_the_method_names_the_nearest():
    with pytest.raises(SettingsError, match=r"sigma_whit: .*Did you mean 'sigma_white'"):
        job("--purifier.sigma-whit", "1")


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        (["--limit"], "--limit: expected a value, found none"),
        (["--limit", "--overwrite"], "--limit: expected a value, found '--overwrite'"),
        (["--limit", "1", "--limit", "2"], "--limit: expected once, found twice"),
        (["a.yaml", "b.yaml"], "expected one CONFIG.yaml, found 'a.yaml' and 'b.yaml'"),
        (["--purifier", "restore"], "--purifier: is a group of fields"),
        (["--limit", "many"], "limit: .*found 'many'"),
        (["--limit", "0"], "limit: .*greater than or equal to 1"),
    ],
)
def test_what_can_not_be_is_told_with_the_flag_that_is_wrong(tokens: list[str], told: str):
    with pytest.raises(ConfigError, match=told):
        job(*tokens)


def test_missing_fields_are_all_named_at_once():
    with pytest.raises(ConfigError) as caught:
        read_job([], {})
    assert [line.split("'")[1] for line in str(caught.value).splitlines()] == ["input", "output"]


@given(st.integers(1, 10**6), st.integers(1, 64), st.booleans())
def test_flags_say_what_the_same_file_says(limit: int, mib: int, before: bool):
    typed = [f"--limit={limit}", "--storage.range-mib", str(mib), "--ask.before" if before else "--no-ask.before"]
    said = {"limit": limit, "storage": {"range_mib": mib}, "ask": {"before": before}}
    assert job(*typed) == JobConfig.model_validate({"input": ["in"], "output": "out", **said})


def test_help_lists_each_field_of_the_models_once_and_ends_with_the_example(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = job_help("purify", "Purify.", "", "zipstage purify --input in/", everything=True)
    typed = [word for line in text.splitlines() if line.startswith("  --") for word in line.split()[:1]]
    assert sorted(typed) == sorted(flag.typed for flag in flags().values())
    assert {"--input", "--classifier.input.std", "--cluster.stall-s"} <= set(typed)
    assert text.endswith("Example:\n  zipstage purify --input in/")
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize("columns", [80, 200])
def test_help_of_few_fields_fits_a_screen(columns: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = job_help("plan", "Say. " * 40, "--no-measure|leave out the time", "zipstage plan", USUAL)
    assert len(text.splitlines()) <= 30
    assert max(map(len, text.splitlines())) <= columns


def test_the_seed_in_the_help_is_the_public_one():
    assert flags()["purifier.seed"].default == "0"
