"""What a scheduler sees of a night: it waits for the marker, is done once, names itself last, and raises the alarm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Bucket
from inprocess import DIED, run, run_in_a_process
from inverting import Inverting
from making import job, samples, write_tar
from storing import tar, write_classifier

from pipeline import job as main_path
from pipeline.config import JobConfig
from pipeline.errors import ConfigError, NotReadyError, StoreRefusedError
from pipeline.facts import Summary
from pipeline.progress import View
from pipeline.screen import closing_table
from pipeline.verdict import verdict
from zipstage.tiles import Tiles


class Darkening(Inverting):
    """Makes every picture black: all that was bright gets another answer, and nothing that was dark."""

    def purify(self, tiles: Tiles) -> Tiles:
        purified = super().purify(tiles)
        purified.pixels[:] = 0
        return purified


def night(folder: Path, date: str = "2026-11-20", **fields: Any) -> JobConfig:
    places = {"input": str(folder / "in/{date}"), "output": str(folder / "out/{date}"), "marker": "_SUCCESS"}
    classifier = {
        "classifier__protocol": "onnx",
        "classifier__path": str(folder / "bright.onnx"),
        "classifier__name": "bright",
        "classifier__input": {"mean": [0.5], "std": [0.5]},
        "alert__min_answers": 20,
    }
    return job(folder, **{**places, **classifier, "date": date, **fields})


def arrive(folder: Path, date: str = "2026-11-20", shards: int = 2, *, is_complete: bool = True) -> None:
    write_classifier(folder / "bright.onnx")
    for number in range(shards):
        write_tar(folder / f"in/{date}/{number}.tar", samples(60, 60 * number))
    if is_complete:
        (folder / f"in/{date}/_SUCCESS").touch()


def latest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out/latest.json").read_text())
    return found


def last_line(summary: Summary) -> str:
    return closing_table(View(), summary, "out").splitlines()[-1]


def test_without_its_marker_a_night_waits_with_75_and_touches_nothing(tmp_path: Path) -> None:
    arrive(tmp_path, is_complete=False)
    with pytest.raises(
        NotReadyError, match=r"marker .*/in/2026-11-20/_SUCCESS: not there yet \(shards there: 2\)"
    ) as caught:
        run(night(tmp_path))
    assert caught.value.exit_code == 75
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_before_the_first_shard_of_a_night_is_there_it_waits_as_well(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError):
        run(night(tmp_path, "2026-11-21"))


def test_each_input_has_a_marker_and_a_pattern_has_that_of_its_folder(tmp_path: Path) -> None:
    arrive(tmp_path)
    config = night(tmp_path, input=[str(tmp_path / "in/{date}/*.tar"), str(tmp_path / "more/{date}")])
    with pytest.raises(NotReadyError, match=r"marker .*/more/2026-11-20/_SUCCESS"):
        run(config)
    assert run(night(tmp_path, input=str(tmp_path / "in/{date}/{0,1}.tar")))[0].exit_code == 0
    elsewhere = night(tmp_path, marker=str(tmp_path / "done-{date}"))
    with pytest.raises(NotReadyError, match="done-2026-11-20"):
        run(elsewhere)


@pytest.mark.s3
def test_a_marker_in_a_bucket_is_found_and_an_empty_prefix_waits(s3: Bucket, tmp_path: Path) -> None:
    config = night(tmp_path, input=f"{s3.uri}/in/{{date}}/", output=f"{s3.uri}/out/{{date}}/", classifier=None)
    with pytest.raises(NotReadyError, match=r"s3://.*shards there: 0"):
        run(config)
    with pytest.raises(StoreRefusedError, match="s3://no-such-bucket"):  # to wait for it would be in vain
        run(night(tmp_path, input="s3://no-such-bucket/{date}/", classifier=None))
    s3.client.put_object(Bucket=s3.name, Key="in/2026-11-20/a.tar", Body=tar(2, kib=1))
    s3.client.put_object(Bucket=s3.name, Key="in/2026-11-20/_SUCCESS", Body=b"")
    summary, _ = run(config)
    assert summary.latest == f"{s3.uri}/out/latest.json"
    found = json.loads(s3.client.get_object(Bucket=s3.name, Key="out/latest.json")["Body"].read())
    assert (found["shards"], found["samples"], found["answers"]) == (1, {"ok": 2}, None)


def test_a_night_is_named_the_latest_with_all_that_it_holds_and_a_rerun_does_nothing(tmp_path: Path) -> None:
    arrive(tmp_path)
    first, _ = run(night(tmp_path))
    assert first.exit_code == 0
    told = latest(tmp_path)
    assert (told["date"], told["output"]) == ("2026-11-20", str(tmp_path / "out/2026-11-20"))
    assert (told["shards"], told["samples"], told["answers"]) == (2, {"ok": 120}, {"ok": 120})
    assert last_line(first).endswith("exit 0: 2 of 2 shards are new; all is committed and answered.")
    again, engine = run(night(tmp_path))
    assert engine is None
    assert (again.exit_code, again.committed, again.asked) == (0, [], [])
    assert last_line(again).endswith("exit 0: nothing new; all is committed and answered.")
    assert latest(tmp_path) == told


def test_shards_that_come_after_the_marker_are_the_only_ones_that_the_next_run_takes(tmp_path: Path) -> None:
    arrive(tmp_path)
    run(night(tmp_path))
    write_tar(tmp_path / "in/2026-11-20/late.tar", samples(5))
    summary, _ = run(night(tmp_path))
    assert (summary.committed, summary.asked) == (["late.tar"], ["late.tar"])
    assert (latest(tmp_path)["shards"], latest(tmp_path)["samples"]) == (3, {"ok": 125})


def test_a_night_that_is_done_again_does_not_become_the_latest(tmp_path: Path) -> None:
    for date in ("2026-11-20", "2026-11-19"):
        arrive(tmp_path, date)
        summary, _ = run(night(tmp_path, date))
        assert summary.exit_code == 0
    assert latest(tmp_path)["date"] == "2026-11-20"
    assert summary.latest == f"{tmp_path}/out/latest.json stays at 2026-11-20"


def test_what_is_not_whole_is_not_the_latest(tmp_path: Path) -> None:
    arrive(tmp_path)
    assert run(night(tmp_path, limit=1))[0].latest is None
    (tmp_path / "in/2026-11-20/broken.tar").write_bytes(b"no tar at all")
    summary, _ = run(night(tmp_path))
    assert (summary.exit_code, summary.latest) == (1, None)
    assert last_line(summary).endswith(
        "of 3 shards 1 not committed. What is committed stays; mend the cause and run again."
    )
    assert not (tmp_path / "out/latest.json").exists()


def test_a_foreign_file_is_not_overwritten(tmp_path: Path) -> None:
    arrive(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/latest.json").write_text('{"mine": 1}')
    with pytest.raises(ConfigError, match=r"latest .*latest.json: expected one of an earlier run"):
        run(night(tmp_path))
    assert latest(tmp_path) == {"mine": 1}


def test_latest_may_not_lie_in_the_input(tmp_path: Path) -> None:
    arrive(tmp_path)
    with pytest.raises(ConfigError, match="lies inside the input"):
        run(night(tmp_path, latest=str(tmp_path / "in/2026-11-20/latest.json")))


def test_latest_is_the_last_write_of_a_night_so_whoever_sees_it_sees_all(tmp_path: Path) -> None:
    arrive(tmp_path, shards=1)
    log = tmp_path / "log"
    config = night(tmp_path, latest=str(tmp_path / "out/2026-11-20/latest.json"))
    assert run_in_a_process(config, 0, log) == 0
    writes = int(log.read_text().split()[-1])
    other = night(tmp_path, output=str(tmp_path / "other/{date}"), latest=str(tmp_path / "other/{date}/latest.json"))
    assert run_in_a_process(other, writes, log) == DIED  # the last write into the output itself is the summary
    assert not (tmp_path / "other/2026-11-20/latest.json").exists()


def test_flips_of_one_class_alone_are_3_and_said_in_table_summary_and_latest(tmp_path: Path) -> None:
    arrive(tmp_path)
    summary, _ = run(night(tmp_path), purifier=Darkening())
    assert summary.exit_code == 3
    assert summary.alert is not None
    assert (summary.alert.class_index, summary.alert.flipped) == (1, summary.alert.answers)
    written = json.loads((tmp_path / "out/2026-11-20/runs/test/summary.json").read_text())
    assert (written["exit_code"], written["alert"]["class_index"], written["alert"]["fired"]) == (3, 1, True)
    assert latest(tmp_path)["alert"] == written["alert"]
    assert "exit 3" in last_line(summary)
    assert "class 1" in last_line(summary)
    again, _ = run(night(tmp_path), purifier=Darkening())
    assert (again.exit_code, again.alert) == (3, summary.alert)


def test_flips_of_all_classes_are_no_alert(tmp_path: Path) -> None:
    arrive(tmp_path)
    summary, _ = run(night(tmp_path))
    assert summary.flipped > 100
    assert summary.alert is not None
    assert not summary.alert.fired


def test_the_alert_of_a_night_in_two_runs_is_that_of_one_and_waits_behind_what_is_missing(tmp_path: Path) -> None:
    arrive(tmp_path)
    (tmp_path / "in/2026-11-20/broken.tar").write_bytes(b"no tar at all")
    summary, _ = run(night(tmp_path, limit=1), purifier=Darkening())
    part = summary.alert
    summary, _ = run(night(tmp_path), purifier=Darkening())
    assert summary.exit_code == 1
    assert summary.alert is not None
    assert part is not None
    assert summary.alert.fired
    assert summary.alert.answers > part.answers


def test_an_alert_that_is_switched_off_is_not_looked_for(tmp_path: Path) -> None:
    arrive(tmp_path)
    summary, _ = run(night(tmp_path, alert__enabled=False), purifier=Darkening())
    assert (summary.exit_code, summary.alert) == (0, None)


def test_a_query_that_completes_a_night_names_it(tmp_path: Path) -> None:
    arrive(tmp_path)
    run(night(tmp_path, classifier=None, latest=str(tmp_path / "elsewhere.json")))
    assert not (tmp_path / "out/latest.json").exists()

    def engine_of(*arguments: Any) -> Any:
        from inprocess import InProcess

        return InProcess(*arguments)

    summary = main_path.query(night(tmp_path), lambda fact: None, engine_of, run="asked")
    assert summary.exit_code == 0
    assert latest(tmp_path)["answers"] == {"ok": 120}
    assert last_line(summary).endswith("exit 0: 2 of 2 shards are new; all is committed and answered.")


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        (Summary("r", failed={"a": "x"}, exit_codes={1}), "1 not committed. What is committed stays"),
        (Summary("r", unanswered={"a": "x"}, exit_codes={75}), "1 unanswered. Run again later"),
        (Summary("r", interrupted=True), "stopped. Run again"),
    ],
)
def test_the_last_line_says_the_exit_code_and_what_to_do(summary: Summary, words: str) -> None:
    assert verdict(summary).startswith(f"exit {summary.exit_code}: ")
    assert words in verdict(summary)
    assert len(verdict(summary).splitlines()) == 1
