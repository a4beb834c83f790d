from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import JobConfig
from pipeline.config_loading import load_config, nest
from pipeline.dates import fill_date
from pipeline.errors import ConfigError

NOW = datetime(2026, 3, 1, 0, 30, tzinfo=UTC)
PLACES = {"input": ["s3://in/{date}/", "s3://in/{date:%Y/%m/%d}/more"], "output": "s3://out/night/{date}/x"}
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("asked", "night"),
    [(None, "2026-03-01"), ("today", "2026-03-01"), ("yesterday", "2026-02-28"), ("2024-02-29", "2024-02-29")],
)
def test_a_date_fills_all_places(asked: str | None, night: str):
    filled = fill_date({**PLACES, "date": asked, "marker": "done/{date}"}, NOW)
    assert filled["date"] == night
    assert filled["input"] == [f"s3://in/{night}/", f"s3://in/{night.replace('-', '/')}/more"]
    assert filled["output"] == f"s3://out/night/{night}/x"
    assert filled["marker"] == f"done/{night}"


def test_today_is_that_of_utc():
    here = datetime(2026, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=5)))
    assert fill_date(PLACES, here)["date"] == "2026-02-28"


@pytest.mark.parametrize("asked", ["2026-02-30", "20261120", "2026-W01-1", "tomorrow", "20-11-2026", "2026-11-20 1"])
def test_what_is_no_date_is_refused(asked: str):
    with pytest.raises(ConfigError, match=f"expected YYYY-MM-DD, today or yesterday, found '{asked}'"):
        fill_date({**PLACES, "date": asked}, NOW)


def test_a_date_that_nothing_asks_for_is_refused_since_it_would_change_nothing():
    with pytest.raises(ConfigError, match=r"expected \{date\} in input or output"):
        fill_date({"input": "in", "output": "out", "date": "today"}, NOW)


@pytest.mark.parametrize("field", ["output", "latest", "marker"])
def test_another_placeholder_is_refused(field: str):
    with pytest.raises(ConfigError, match=r"there is no placeholder \{day\}"):
        fill_date({**PLACES, field: "a/{day}/{date}"}, NOW)


def test_the_braces_of_an_inputs_pattern_stay():
    filled = fill_date({"input": "in/{date}/{000..011}.tar", "output": "out/{date}"}, NOW)
    assert filled["input"] == "in/2026-03-01/{000..011}.tar"


@pytest.mark.parametrize(
    ("output", "latest"),
    [
        ("s3://out/night/{date}/", "s3://out/night/latest.json"),
        ("s3://out/{date}", "s3://out/latest.json"),
        ("s3://out/cam-{date}/a", "s3://out/latest.json"),
        ("s3://out-{date}/a", None),  # a bucket for each night has nothing above it
        ("{date}/out", "latest.json"),
        ("/data/out/{date}", "/data/out/latest.json"),
    ],
)
def test_latest_lies_beside_the_dated_outputs_unless_it_is_set(output: str, latest: str | None):
    assert fill_date({"input": "in", "output": output}, NOW)["latest"] == latest
    assert fill_date({"input": "in", "output": output, "latest": "a/b"}, NOW)["latest"] == "a/b"


def test_an_output_without_a_date_has_no_latest():
    assert "latest" not in fill_date({"input": "in", "output": "out"}, NOW)


def load(environment: dict[str, str], **flags: Any) -> JobConfig:
    return load_config(None, nest({"input": "in/{date}", "output": "out/{date}", **flags}), environment)


def test_a_flag_wins_over_the_environment_and_a_date_of_yaml_is_one():
    assert load({"ZIPSTAGE_DATE": "2026-11-19"}).output == "out/2026-11-19"
    assert load({"ZIPSTAGE_DATE": "2026-11-19"}, date="2026-11-20").input == ("in/2026-11-20",)
    assert load({"ZIPSTAGE_DATE": ""}).date == datetime.now(UTC).date().isoformat()


def test_the_nightly_config_is_a_job_of_yesterday_when_the_environment_says_so(tmp_path: Path):
    config = load_config(ROOT / "jobs/configs/nightly.yaml", {}, {"ZIPSTAGE_DATE": "2026-11-20"})
    assert config.input == ("s3://incoming/night/2026-11-20/",)
    assert config.output == "s3://purified/night/2026-11-20/"
    assert (config.marker, config.latest) == ("_SUCCESS", "s3://purified/night/latest.json")
    (tmp_path / "dated.yaml").write_text("input: in/{date}\noutput: out/{date}\ndate: 2026-11-20\n")
    assert load_config(tmp_path / "dated.yaml").output == "out/2026-11-20"


@pytest.mark.parametrize("run", ["", "a/b", "../x", ".hidden", "x" * 101])
def test_a_runs_name_is_a_plain_one(run: str):
    with pytest.raises(ConfigError, match="run"):
        load({}, run=run)
