"""What a page says and shows, and that nothing of what it holds can do anything."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from making import encoded, picture
from outputs import answered, many, write, write_output, write_run
from pages import Node, parsed, samples_of, section, tiles
from PIL import Image

from pipeline.report import build_page, charts, gallery
from pipeline.report.flips import MAX_CLASSES
from pipeline.report.page import plain
from pipeline.report.scan import GALLERY
from pipeline.store import open_store

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;{{7*7}}{% raw %}"


def page_of(folder: Path, run: str | None = None) -> Node:
    return parsed(build_page(open_store(str(folder)), run)[1])


def verdicts(page: Node) -> list[str]:
    return [node.text for node in page.all("p") if (node.attrs.get("class") or "").startswith("verdict")]


# --- figures ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_output(tmp_path_factory.mktemp("output"), {"a.tar": many(2_000, 1), "b.tar": many(3_000, 2)})
    labels = [f"sign {index}" for index in range(10)]
    write_run(folder, "night", {"classifier": {"name": "box", "labels": labels}}, asked=["a.tar"], exit_code=75)
    write(
        folder / "runs/night/timeline.json",
        {
            "began": "2026-11-20T23:30:00+00:00",
            "seconds": 100.0,
            "device": "cuda",
            "purifiers": 2,
            "started_s": 2.0,
            "last_part_s": 8.0,
            "bucket_s": 2.0,
            "stages": {"read": [0, 40, 60], "purify": [0, 30, 0, 60], "stage": [0, 2048], "commit": [], "ask": []},
        },
    )
    return folder


@pytest.fixture(scope="module")
def page(output: Path) -> Node:
    return page_of(output)


def asked(output: Path, query: str) -> list[Any]:
    return duckdb.sql(query.format(rows=f"read_parquet('{output}/predictions/box/*.parquet')")).fetchall()


def test_totals_are_those_of_the_tables(output: Path, page: Node) -> None:
    query = "select count(*), count_if(status = 'ok'), count(flipped), count_if(flipped) from {rows}"
    ((received, purified, both, flipped),) = asked(output, query)
    assert tiles(page) == {
        "received": f"{received:,}",
        "purified": f"{purified:,}",
        "shards": "2",
        "answered": f"{both:,}",
        "flipped": f"{flipped:,}",
        "took": "100 s",
        "speed": "15",  # 90 images in the 6 s from the start of the graph to its last part
        "exit code": "75",
    }


def test_samples_by_status_are_those_of_the_tables(output: Path, page: Node) -> None:
    found = {row[0]: row[1] for row in page.one("table", aria_labelledby="statuses").rows()}
    assert found == {
        status: f"{count:,}" for status, count in asked(output, "select status, count(*) from {rows} group by 1")
    }


def test_flips_are_those_of_the_tables_and_the_class_that_stands_out_comes_first(output: Path, page: Node) -> None:
    rows = section(page, "flips").one("table").rows()
    expected = asked(
        output,
        "select prediction_before, count(flipped), count_if(flipped) from {rows} where flipped is not null group by 1",
    )
    assert {tuple(row[:3]) for row in rows} == {
        (f"{index} (sign {index})", f"{answers:,}", f"{flipped:,}") for index, answers, flipped in expected
    }
    assert rows[0][0] == "3 (sign 3)"
    assert rows[0][3] == f"{next(flipped / answers for index, answers, flipped in expected if index == 3):.0%}"
    ((to, count),) = asked(
        output,
        "select prediction_after, count(*) from {rows} where flipped and prediction_before = 3 group by 1 "
        "order by 2 desc limit 1",
    )
    assert rows[0][5].startswith(f"{to} (sign {to}) {count}")


def test_the_alert_says_what_the_alert_of_the_job_says(output: Path, page: Node) -> None:
    ((answers, flipped),) = asked(
        output, "select count(flipped), count_if(flipped) from {rows} where prediction_before = 3"
    )
    (said,) = verdicts(section(page, "flips"))
    assert said.startswith(f"Alert fired: {flipped} of {answers} answers of class 3 flipped")


def test_throughput_is_told_by_stage(page: Node) -> None:
    lanes = section(page, "throughput").all("figcaption")
    assert [lane.one("strong").text for lane in lanes] == ["read", "purify", "stage"]  # nothing else was done
    assert "100 samples, 25 samples/s on average, 30 samples/s at most" in lanes[0].text
    assert "2.0 KiB" in lanes[2].text


def test_a_part_was_worked_on_since_the_one_before_it() -> None:
    stages = {"read": [0, 0, 0, 0, 40], "commit": [0, 0, 0, 0, 0, 0, 40, 40], "ask": [0] * 8}
    read, commit = charts.lanes({"started_s": 1.0, "bucket_s": 1.0, "stages": stages})
    assert (read.mean, read.peak) == ("10 samples/s", "10 samples/s")  # from second 1 to 5, and not 40 in one
    assert (commit.mean, commit.peak) == ("20 samples/s", "40 samples/s")  # since there was a part to commit
    assert read.path == "M0 48V48.0H75.0V0.0H150.0V0.0H225.0V0.0H300.0V0.0H375.0V48.0H450.0V48.0H525.0V48.0H600.0V48Z"


def test_samples_are_shown_with_key_place_answers_and_what_filters_go_by(output: Path, page: Node) -> None:
    first = samples_of(page, "suspects")[0]
    ((key, shard, index, before, after, suspicion),) = asked(
        output,
        'select key, shard, "index", prediction_before, prediction_after, suspicion from {rows} '
        "order by suspicion desc nulls last limit 1",
    )
    assert first.one("h4").text == key
    assert first.one("p", class_="faint place").text == f"{shard} , sample {index:,}"
    assert f"{before} (sign {before}) → became {after} (sign {after})" in first.text
    assert first.attrs["data-suspicion"] == f"{suspicion:.6f}"
    assert (first.attrs["data-flip"], first.attrs["data-status"], first.attrs["data-shard"]) == ("flipped", "ok", shard)
    assert len(samples_of(page, "suspects")) == len(samples_of(page, "randoms")) == GALLERY


def test_what_was_not_purified_is_shown_with_its_reason(page: Node) -> None:
    left_out = samples_of(page, "left-out")
    assert {node.attrs["data-status"] for node in left_out} == {"undecodable"}
    assert all("cannot identify image file" in node.text for node in left_out)


def test_an_unanswered_sample_is_purified_and_has_a_reason(tmp_path: Path) -> None:
    rows = [answered("a", 0, 0, 0.1), {"key": "b", "status": "unanswered", "error": "too small for it"}]
    page = page_of(write_output(tmp_path, {"a.tar": rows}))
    assert tiles(page)["purified"] == "2"
    assert tiles(page)["answered"] == "1"
    (node,) = samples_of(page, "left-out")
    assert "too small for it" in node.text


def test_of_a_thousand_classes_the_first_hundred_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    rows = [answered(str(i), i % 1000, i % 7, 0.5) for i in range(2_000)]
    page = page_of(write_output(tmp_path, {"a.tar": rows}))
    assert len(section(page, "flips").one("table").rows()) == MAX_CLASSES
    assert "and 900 classes more" in section(page, "flips").text


def test_a_page_tells_of_its_runs_shards_and_of_all_when_asked_to(tmp_path: Path) -> None:
    rows = [answered(str(i), 3 if i < 60 else i % 3, i % 3, 0.5) for i in range(120)]
    write_output(tmp_path, {"a.tar": rows, "b.tar": [answered("b", 0, 0, 0.1)]})
    alert = {
        "fired": True,
        "threshold": 0.2,
        "class_index": 7,
        "answers": 9,
        "flipped": 8,
        "others": 0.0,
        "at_least": 0.5,
    }
    write_run(tmp_path, "night", {"classifier": {"name": "box"}}, committed=[], asked=["a.tar"], alert=alert)
    page = page_of(tmp_path)
    assert tiles(page)["received"] == "120"
    assert "1 more were committed by other runs" in section(page, "totals").text
    assert "8 of 9 answers of class 7 flipped" in verdicts(section(page, "flips"))[0]  # of all shards that it was about
    assert "Of what this page tells of: 60 of 60 answers of class 3" in section(page, "flips").text
    of_all = parsed(build_page(open_store(str(tmp_path)), of_all=True)[1])
    assert tiles(of_all)["received"] == "121"
    assert "60 of 60 answers of class 3 flipped" in verdicts(section(of_all, "flips"))[0]
    assert "8 of 9 answers of class 7" in section(of_all, "flips").text


# --- what is missing ----------------------------------------------------------------------------------


def test_an_output_without_a_classifier_has_no_flips_and_shows_what_changed_most(tmp_path: Path) -> None:
    rows = [{"key": str(i), "psnr": 20.0 + i} for i in range(3)]
    page = page_of(write_output(tmp_path, {"a.tar": rows}, classifier=None))
    assert page.all("section", aria_labelledby="flips") == []
    assert "answered" not in tiles(page)
    assert [node.one("h4").text for node in samples_of(page, "suspects")] == ["0", "1", "2"]
    assert "purification changed most" in section(page, "suspects").text


def test_answers_without_scores_have_flips_and_no_suspicion(tmp_path: Path) -> None:
    page = page_of(write_output(tmp_path, {"a.tar": [answered(str(i), 0, i % 2) for i in range(6)]}))
    assert section(page, "flips").one("table").rows()[0][1:3] == ["6", "3"]
    assert "Suspicion" not in section(page, "flips").text
    assert {node.attrs["data-suspicion"] for node in samples_of(page, "suspects")} == {"-1"}


def test_an_empty_output_is_a_page_too(tmp_path: Path) -> None:
    page = page_of(write_output(tmp_path, {"a.tar": []}))
    assert tiles(page)["received"] == "0"
    assert "There are none to show" in section(page, "samples").text
    nothing = page_of(write_output(tmp_path / "nothing", {}))
    assert tiles(nothing)["shards"] == "0"
    assert "no shard was committed" in nothing.text


def test_answers_to_one_image_alone_are_no_flips(tmp_path: Path) -> None:
    row = {"key": "a", "prediction_after": 4, "scores_after": [{"class": 4, "score": 1.0}]}
    page = page_of(write_output(tmp_path, {"a.tar": [row]}))
    assert "No sample has an answer to both" in section(page, "flips").text
    assert "purified: 4" in samples_of(page, "randoms")[0].text


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        ({"exit_code": 0}, "exit 0: 1 of 1 shards are new"),
        ({"exit_code": 130}, "exit 130: stopped. Run again"),
        ({"exit_code": 75, "unanswered": {"a.tar": "nobody there"}}, "exit 75: of 1 shards 1 unanswered"),
        ({"exit_code": 1, "failed": {"a.tar": "broken after 'k'"}}, "exit 1: of 1 shards 1 not committed"),
        ({"exit_code": 1, "error": "no part came for 600 s"}, "no part came for 600 s"),
    ],
)
def test_how_the_run_ended_is_said_first_and_why(tmp_path: Path, summary: dict[str, Any], words: str) -> None:
    write_output(tmp_path, {"a.tar": []})
    write_run(tmp_path, "night", **summary)
    page = page_of(tmp_path)
    assert words in page.one("header").text
    reasons = [*summary.get("unanswered", {}).values(), *summary.get("failed", {}).values()]
    assert all(reason in section(page, "totals").text for reason in reasons)


def test_files_of_another_version_of_the_program_are_no_reason_to_fail(tmp_path: Path) -> None:
    write_output(tmp_path, {"a.tar": [answered("a", 0, 0, 0.1)]})
    config = {"classifier": {"protocol": "telepathy"}, "alert": {"colour": "red"}}
    write_run(tmp_path, "night", config, mood="good", alert={"fired": False, "threshold": 0.2, "weather": "fair"})
    write(tmp_path / "runs/night/timeline.json", ["no", "timeline"])
    page = page_of(tmp_path)
    assert "telepathy" in section(page, "settings").text
    assert tiles(page)["answered"] == "1"  # by the only classifier that there is


# --- nothing in it can do anything --------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Node]:
    folder = tmp_path_factory.mktemp("hostile")
    rows = [
        answered(EVIL, 0, 1, 0.9, label=0, mode=EVIL),
        {"key": f"{EVIL}2", "status": "undecodable", "error": EVIL},
        {"key": "exe.\u202egnp", "status": "rejected", "error": "a\x00b\x1b[31m"},
    ]
    write_output(folder, {"a.tar": rows})
    config = {"classifier": {"name": "box", "labels": [EVIL, EVIL]}, EVIL: EVIL}
    told = {"error": EVIL, "failed": {EVIL: EVIL}, "unanswered": {EVIL: EVIL}, "statuses": {EVIL: 1}}
    write_run(folder, "night", config, exit_code=1, **told)
    write(folder / "runs/night/timeline.json", {"warnings": [EVIL], "num_warnings": 1, "device": EVIL, "purifiers": 1})
    page = build_page(open_store(str(folder)))[1]
    return page, parsed(page)


def test_hostile_text_makes_no_element_and_no_attribute(hostile: tuple[str, Node]) -> None:
    text, page = hostile
    own = (files("pipeline.report") / "page/report.js").read_text()
    (script,) = page.all("script")
    assert script.children == [own]
    assert {node.tag for node in page.walk()} <= {
        *("page", "html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "script"),
        *("h1", "h2", "h3", "h4", "p", "bdi", "code", "span", "strong", "dl", "dt", "dd", "div", "ul", "ol", "li"),
        *("table", "caption", "thead", "tbody", "tr", "th", "td", "svg", "rect", "text", "path", "figure", "img"),
        *("figcaption", "form", "label", "input", "select", "option", "button", "details", "summary"),
        *("nav", "a"),
    }
    assert not [name for node in page.walk() for name in node.attrs if name.startswith("on") or name == "style"]
    assert {node.attrs["src"][:11] for node in page.all("img") if node.attrs["src"]} <= {"data:image/"}
    assert "<img src=x" not in text
    assert "{{7*7}}" in text  # and is not 49
    assert all(str(node.attrs["href"]).startswith("#") for node in page.walk() if "href" in node.attrs)


def test_hostile_text_is_shown_as_it_is(hostile: tuple[str, Node]) -> None:
    _, page = hostile
    (card,) = samples_of(page, "suspects")
    assert card.one("h4").text == EVIL
    assert card.attrs["data-key"] == EVIL.lower()
    assert sum(EVIL in node.text for node in page.all("li")) >= 4  # failed, unanswered, warned, sample


def test_what_cant_be_printed_is_spelled_out(hostile: tuple[str, Node]) -> None:
    text, page = hostile
    assert "\\u202egnp" in page.text
    assert "a\\x00b\\x1b[31m" in page.text
    assert not re.search("[\x00-\x09\x0b-\x1f\u202a-\u202e]", text)
    assert plain("a" * 1000, 10) == "a" * 10 + "..."


def test_the_pages_own_policy_allows_its_script_and_its_style_and_nothing_else(hostile: tuple[str, Node]) -> None:
    _, page = hostile
    policy = page.one("meta", http_equiv="Content-Security-Policy").attrs["content"]
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for name, tag in (("script-src", "script"), ("style-src", "style")):
        (text,) = page.one(tag).children
        assert isinstance(text, str)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"


def test_nothing_is_loaded_from_elsewhere(hostile: tuple[str, Node]) -> None:
    text, _ = hostile
    assert not re.search(r"https?://|@import|url\(", text)


# --- pictures -----------------------------------------------------------------------------------------


def pixels_of(shown: gallery.Picture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.uri.partition(",")[2]))))


def test_a_small_image_is_shown_pixel_by_pixel_and_its_difference_amplified() -> None:
    before = picture(1)
    after = before // 2
    shown = gallery.pictures_of(encoded(before), encoded(after))
    assert (pixels_of(shown.received) == before).all()
    assert (pixels_of(shown.purified) == after).all()
    expected = np.minimum(255, gallery.AMPLIFIED * (before - after).astype(int))
    assert (pixels_of(shown.difference) == expected).all()


def test_pictures_of_the_worst_images_are_small() -> None:
    noise = np.random.default_rng(0)
    for side in (gallery.EXACT_PX, gallery.SHOWN_PX, 900):
        before, after = (noise.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(2))
        shown = gallery.pictures_of(encoded(before), encoded(after))
        panels = (shown.received, shown.purified, shown.difference)
        assert max(max(pixels_of(one).shape) for one in panels) <= gallery.SHOWN_PX
        assert 2 * GALLERY * sum(len(one.uri) for one in panels) < 4 << 20  # of a page's 5 MB


def test_a_narrow_image_keeps_its_shape() -> None:
    shown = gallery.pictures_of(encoded(picture(1, 1000, 10)), encoded(picture(2, 1000, 10)))
    assert pixels_of(shown.received).shape == (gallery.SHOWN_PX, 2, 3)


def test_an_image_that_cant_be_decoded_says_why() -> None:
    shown = gallery.pictures_of(b"no image", encoded(picture(1)))
    assert "expected one of" in shown.received.why_not
    assert shown.purified.uri
    assert shown.difference.why_not == "needs both images"
