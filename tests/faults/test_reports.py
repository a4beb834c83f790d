"""The report of a real run, however it ends; and that nothing about a report changes how a run ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest
from conftest import Bucket
from inprocess import InProcess, ending
from making import encoded, job, picture, samples, write_tar
from pages import Node, parsed, samples_of, section, tiles
from storing import write_classifier

from jobs.main import main
from pipeline import job as main_path
from pipeline import report
from pipeline.config import JobConfig
from pipeline.errors import StalledError, StoreAwayError
from pipeline.facts import Fact, Summary, Warned
from pipeline.report import gallery
from pipeline.store import Store


def asking(folder: Path, **fields: Any) -> JobConfig:
    """A job that asks whether an image is bright; the purifier inverts it, so many answers flip."""
    write_classifier(folder / "bright.onnx")
    box = {"protocol": "onnx", "path": str(folder / "bright.onnx"), "name": "bright", "input": {"mean": [0.5]}}
    named = {f"classifier__{name}": value for name, value in box.items()}
    return job(folder, **{"alert__min_answers": 5, **named, **fields})


def purified(config: JobConfig, engine: Any = InProcess, run: str = "test") -> tuple[Summary, list[Fact]]:
    facts: list[Fact] = []
    return main_path.purify(config, facts.append, engine, run=run), facts


def page_of(folder: Path, run: str = "test") -> Node:
    return parsed((folder / f"out/runs/{run}/report.html").read_text())


def images(node: Node) -> dict[str, bool]:
    """The panels of a card by caption, and whether there is an image in each."""
    return {figure.one("figcaption").text: bool(figure.all("img")) for figure in node.all("figure")}


@pytest.fixture
def two_shards(tmp_path: Path) -> Path:
    write_tar(tmp_path / "in/a.tar", [*samples(40), [("broken.png", b"no image")]])
    write_tar(tmp_path / "in/b.tar", samples(20, 100, 80, 70))
    return tmp_path


def test_a_run_leaves_a_page_with_its_figures_and_its_images(two_shards: Path) -> None:
    summary, facts = purified(asking(two_shards))
    page = page_of(two_shards)
    rows = f"read_parquet('{two_shards}/out/predictions/bright/*.parquet')"
    ((count, flipped),) = duckdb.sql(f"select count(*), count_if(flipped) from {rows}").fetchall()
    assert tiles(page)["received"] == str(count) == "61"
    assert tiles(page)["flipped"] == str(flipped)
    assert flipped > 0
    cards = [*samples_of(page, "suspects"), *samples_of(page, "randoms")]
    assert len(cards) == 48
    assert {name for card in cards for name, is_there in images(card).items() if is_there} == {
        "received",
        "purified",
        f"difference x{4}",
    }
    assert all(all(images(card).values()) for card in cards)
    (broken,) = samples_of(page, "left-out")
    assert broken.attrs["data-key"] == "broken"
    assert [lane.one("strong").text for lane in section(page, "throughput").all("figcaption")] == [
        *("read", "purify", "stage", "commit", "ask")
    ]
    assert summary.report == f"{two_shards}/out/runs/test/report.html"
    assert not [fact for fact in facts if isinstance(fact, Warned)]
    assert "purifier.seed **********" in section(page, "settings").text


def test_a_page_made_anew_is_the_same_page(two_shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    purified(asking(two_shards))
    written = two_shards / "out/runs/test/report.html"
    before = written.read_bytes()
    written.unlink()
    assert main(["report", str(two_shards / "out")]) == 0
    assert capsys.readouterr().out == f"{written}\n"
    assert written.read_bytes() == before


def test_a_rerun_with_nothing_to_do_says_so_and_all_is_told_when_asked_for(two_shards: Path) -> None:
    purified(asking(two_shards))
    purified(asking(two_shards), run="again")
    page = page_of(two_shards, "again")
    assert tiles(page)["purified"] == "0"
    assert "2 more were committed by other runs: zipstage report --all" in section(page, "totals").text
    assert page.all("section", aria_labelledby="throughput") == []
    assert main(["report", str(two_shards / "out"), "--all"]) == 0
    of_all = two_shards / "out/runs/again/report-all.html"
    assert tiles(parsed(of_all.read_text()))["purified"] == "60"


def test_the_page_of_a_night_opens_nothing_of_the_nights_before(
    two_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    purified(job(two_shards))
    write_tar(two_shards / "in/c.tar", samples(3, 900))
    opened: list[str] = []
    real = Store.open

    def noted(self: Store, stored: Any, *arguments: Any) -> Any:
        opened.append(stored.path)
        return real(self, stored, *arguments)

    monkeypatch.setattr(Store, "open", noted)
    purified(job(two_shards), run="second")
    assert tiles(page_of(two_shards, "second"))["purified"] == "3"
    assert opened
    assert not [path for path in opened if "a.tar" in path or "b.tar" in path]


def test_a_job_that_wants_no_report_leaves_none(two_shards: Path) -> None:
    summary, _ = purified(job(two_shards, report=False))
    assert summary.report is None
    assert {path.name for path in (two_shards / "out/runs/test").iterdir()}.isdisjoint({"report.html", "timeline.json"})


# --- input that is gone or another one ----------------------------------------------------------------


def rebuilt(folder: Path) -> Node:
    assert main(["report", str(folder / "out"), "--to", str(folder / "page.html")]) == 0
    return parsed((folder / "page.html").read_text())


def test_an_input_that_is_gone_is_said_in_its_place_and_the_purified_image_is_shown(two_shards: Path) -> None:
    purified(asking(two_shards))
    shutil.rmtree(two_shards / "in")
    cards = samples_of(rebuilt(two_shards), "suspects")
    assert {tuple(images(card).values()) for card in cards} == {(False, True, False)}
    assert all("its shard is gone" in card.text for card in cards)


def test_an_input_that_is_another_one_now_is_not_taken_for_what_was_purified(two_shards: Path) -> None:
    purified(asking(two_shards))
    write_tar(two_shards / "in/a.tar", samples(41, 500))
    cards = samples_of(rebuilt(two_shards), "randoms")
    of_a = [card for card in cards if card.attrs["data-shard"] == "a.tar"]
    assert of_a
    assert all("its shard is another one by now" in card.text for card in of_a)
    assert {tuple(images(card).values()) for card in of_a} == {(False, True, False)}
    assert all(all(images(card).values()) for card in cards if card.attrs["data-shard"] == "b.tar")


def test_a_purified_image_that_isnt_its_rows_is_not_shown(two_shards: Path) -> None:
    purified(job(two_shards))
    tar = two_shards / "out/shards/b.tar"
    other = encoded(255 - picture(3, 80, 70))
    write_tar(tar, [[(f"{i:06d}.png", other)] for i in range(100, 120)])
    cards = [node for node in samples_of(rebuilt(two_shards), "randoms") if node.attrs["data-shard"] == "b.tar"]
    assert all("another image by now" in card.text for card in cards)
    assert {tuple(images(card).values()) for card in cards} == {(True, False, False)}


def test_a_shard_that_broke_since_is_said_in_its_place(two_shards: Path) -> None:
    purified(job(two_shards))
    tar = two_shards / "out/shards/a.tar"
    tar.write_bytes(tar.read_bytes()[:2000])
    cards = [node for node in samples_of(rebuilt(two_shards), "randoms") if node.attrs["data-shard"] == "a.tar"]
    assert cards
    assert all("broken" in card.text for card in cards)


def test_a_shard_that_is_withdrawn_meanwhile_is_said_in_its_place(
    two_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    purified(job(two_shards))
    monkeypatch.setattr(gallery, "read_record", lambda *_: None)
    cards = samples_of(rebuilt(two_shards), "randoms")
    assert len(cards) == 24
    assert all("its shard was withdrawn meanwhile" in card.text for card in cards)


def test_a_hostile_key_of_a_real_tar_is_shown_as_text(tmp_path: Path) -> None:
    key = "<img src=x onerror=alert(1)>\"'"
    write_tar(tmp_path / "in/a.tar", [[(f"{key}.png", encoded(picture(1)))]])
    purified(job(tmp_path))
    page = page_of(tmp_path)
    assert [node.one("h4").text for node in samples_of(page, "randoms")] == [key]
    assert not [node for node in page.all("img") if not str(node.attrs["src"]).startswith("data:image/")]


# --- however it ends ----------------------------------------------------------------------------------


def test_an_interrupted_run_leaves_a_page_of_what_is_committed(two_shards: Path) -> None:
    summary, _ = purified(job(two_shards), ending(KeyboardInterrupt()))
    assert summary.exit_code == 130
    page = page_of(two_shards)
    assert tiles(page)["shards"] == "1"
    assert "exit 130: stopped" in page.one("header").text


def test_a_run_that_breaks_down_leaves_a_page_with_the_reason(two_shards: Path) -> None:
    with pytest.raises(StalledError):
        purified(job(two_shards), ending(StalledError("no part came for 600 s")))
    assert "no part came for 600 s" in page_of(two_shards).one("header").text


def test_a_run_whose_shards_all_fail_leaves_a_page_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tar").write_bytes(b"no tar" * 500)
    summary, _ = purified(job(tmp_path))
    assert summary.exit_code == 1
    page = page_of(tmp_path)
    assert tiles(page)["received"] == "0"
    assert "shard a.tar: broken" in section(page, "totals").text


def test_an_empty_shard_is_a_page_of_no_sample(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", [])
    purified(asking(tmp_path))
    page = page_of(tmp_path)
    assert (tiles(page)["received"], tiles(page)["shards"]) == ("0", "1")


def raising(error: BaseException) -> Any:
    def raises(*_: Any, **__: Any) -> Any:
        raise error

    return raises


@pytest.mark.parametrize("error", [RuntimeError("a bug\nin two lines"), MemoryError()])
def test_a_page_that_cant_be_made_is_a_warning_and_the_run_ends_as_it_would(
    two_shards: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(report, "render", raising(error))
    summary, facts = purified(job(two_shards))
    assert summary.exit_code == 0
    assert summary.report is None
    (warned,) = [fact for fact in facts if isinstance(fact, Warned)]
    assert warned.message.startswith("no report was written: ")
    assert "\n" not in warned.message
    assert json.loads((two_shards / "out/runs/test/summary.json").read_text())["exit_code"] == 0


def test_an_interrupt_ends_the_run_also_while_its_page_is_made(
    two_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "render", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        purified(job(two_shards))
    assert json.loads((two_shards / "out/runs/test/summary.json").read_text())["exit_code"] == 0  # all of it is done


def test_a_page_that_storage_doesnt_take_is_a_warning(two_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = Store.put

    def away(self: Store, path: str, data: bytes, *, create: bool = False) -> None:
        if path.endswith("report.html"):
            raise StoreAwayError("the bucket is away")
        put(self, path, data, create=create)

    monkeypatch.setattr(Store, "put", away)
    summary, facts = purified(job(two_shards))
    assert summary.exit_code == 0
    assert "no report was written: the bucket is away" in str(facts)


def test_a_stopped_run_gives_its_page_little_time_and_the_page_says_what_it_left_out(
    two_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "WHEN_STOPPED_S", -1.0)
    purified(asking(two_shards), ending(KeyboardInterrupt()))
    page = page_of(two_shards)
    assert "The figures are of 0 of 1 shards, for want of time" in page.one("header").text
    assert "The figures are of" not in rebuilt(two_shards).one("header").text


def test_when_time_is_up_for_pictures_the_figures_are_whole(two_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = report.draw
    monkeypatch.setattr(report, "draw", lambda *arguments: real(*arguments[:-1], 0.0))
    purified(job(two_shards))
    page = page_of(two_shards)
    assert tiles(page)["purified"] == "60"
    assert all("not read: time was up" in card.text for card in samples_of(page, "randoms"))


# --- the command --------------------------------------------------------------------------------------


def test_without_a_name_the_run_that_began_last_is_taken(two_shards: Path) -> None:
    for run in ("zebra", "antelope"):
        purified(job(two_shards), run=run)
        timeline = two_shards / f"out/runs/{run}/timeline.json"
        began = {"zebra": "2026-01-01", "antelope": "2026-02-01"}[run]
        timeline.write_text(json.dumps({**json.loads(timeline.read_text()), "began": began}))
    assert rebuilt(two_shards).one("h1").text == "antelope"
    assert main(["report", str(two_shards / "out"), "--run", "zebra", "--to", str(two_shards / "z.html")]) == 0
    assert parsed((two_shards / "z.html").read_text()).one("h1").text == "zebra"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{0}/out", "--run", "tset"], "run tset: expected runs/tset/summary.json"),
        (["{0}/out", "--run", "tset"], "Did you mean 'test'?"),
        (["{0}/in"], "expected what purify made, found no settings.json"),
        (["{0}/out", "--to", "{0}/nowhere/page.html"], "page.html: can't be written: No such file or directory"),
    ],
)
def test_what_is_wrong_is_2_and_one_line(
    two_shards: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    purified(job(two_shards))
    assert main(["report", *(argument.format(two_shards) for argument in arguments)]) == 2
    told = capsys.readouterr()
    assert words in told.err
    assert len(told.err.splitlines()) == 1
    assert told.out == ""


def test_what_a_killed_run_committed_is_told_in_a_file_that_people_name(
    two_shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    purified(job(two_shards))
    shutil.rmtree(two_shards / "out/runs")
    assert main(["report", str(two_shards / "out")]) == 2
    assert "--to report.html" in capsys.readouterr().err
    page = rebuilt(two_shards)
    assert tiles(page)["purified"] == "60"
    assert "it was killed before it could say how" in page.one("header").text


@pytest.mark.s3
def test_a_page_is_written_to_a_bucket_and_made_anew_there(tmp_path: Path, s3: Bucket) -> None:
    data = write_tar(tmp_path / "a.tar", samples(5)).read_bytes()
    s3.client.put_object(Bucket=s3.name, Key="in/a.tar", Body=data)
    config = job(tmp_path, input=f"{s3.uri}/in/", output=f"{s3.uri}/out")
    summary, _ = purified(config)
    assert summary.report == f"{s3.uri}/out/runs/test/report.html"

    def page() -> bytes:
        return bytes(s3.client.get_object(Bucket=s3.name, Key="out/runs/test/report.html")["Body"].read())

    before = page()
    assert all(all(images(card).values()) for card in samples_of(parsed(before.decode()), "randoms"))
    s3.client.delete_object(Bucket=s3.name, Key="out/runs/test/report.html")
    assert main(["report", f"{s3.uri}/out"]) == 0
    assert page() == before
