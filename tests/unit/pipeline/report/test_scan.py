"""Counts and choices against DuckDB over the same files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from outputs import answered, many, write_output

from pipeline import ledger
from pipeline.report import build_page, scan
from pipeline.report.page import flattened
from pipeline.report.samples import read_samples
from pipeline.report.scan import BINS, GALLERY, LISTED, MAX_LEFT_OUT
from pipeline.store import Store, open_store


def places(names: list[str], classifier: str = "box") -> dict[str, str]:
    return {name: ledger.predictions_path(classifier, name) for name in names}


def scanned(folder: Path, names: list[str], until_s: float | None = None) -> scan.Scan:
    return scan.scan_tables(open_store(str(folder)), names, places(names), until_s)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("output")
    return write_output(folder, {"a/0.tar": many(3_000, 1), "a/1.tar": many(5_000, 2), "b.tar": many(10, 3)})


NAMES = ["a/0.tar", "a/1.tar", "b.tar"]


@pytest.fixture(scope="module")
def found(output: Path) -> scan.Scan:
    return scanned(output, NAMES)


def asked(output: Path, query: str) -> list[Any]:
    return duckdb.sql(query.format(rows=f"read_parquet('{output}/predictions/box/**/*.parquet')")).fetchall()


def test_statuses_are_those_of_the_rows(output: Path, found: scan.Scan) -> None:
    assert dict(found.statuses) == dict(asked(output, "select status, count(*) from {rows} group by 1"))
    assert found.samples == 8_010


def test_flips_by_class_are_those_of_the_rows(output: Path, found: scan.Scan) -> None:
    by_class = asked(
        output,
        "select prediction_before, count(flipped), count_if(flipped) from {rows} "
        "where prediction_before is not null group by 1",
    )
    assert found.by_class == {index: (answers, flipped) for index, answers, flipped in by_class}
    pairs = asked(
        output, "select prediction_before, prediction_after, count(*) from {rows} where flipped group by 1, 2"
    )
    assert dict(found.flips) == {(before, after): count for before, after, count in pairs}


def test_the_histogram_holds_each_answer_once(output: Path, found: scan.Scan) -> None:
    bins = asked(
        output,
        f"select flipped, least({BINS - 1}, floor(suspicion::double * {BINS})::int), count(*) from {{rows}} "
        "where flipped is not null group by 1, 2",
    )
    for is_flipped, counts in ((True, found.flipped_by_suspicion), (False, found.kept_by_suspicion)):
        assert {at: count for at, count in enumerate(counts.tolist()) if count} == {
            at: count for flipped, at, count in bins if flipped == is_flipped
        }


def test_the_most_suspect_are_those_of_all_shards(output: Path, found: scan.Scan) -> None:
    first = asked(
        output,
        f'select shard, "index" from {{rows}} where suspicion > 0 order by suspicion desc limit {GALLERY + LISTED}',
    )
    assert [spot[1:] for spot in found.suspects] == first


def test_what_is_drawn_at_random_is_purified_and_the_same_each_time(output: Path, found: scan.Scan) -> None:
    again = scanned(output, NAMES)
    assert (found.randoms, found.left_out) == (again.randoms, again.left_out)
    assert len(set(found.randoms)) == GALLERY
    statuses = {
        (shard, index): status for shard, index, status in asked(output, 'select shard, "index", status from {rows}')
    }
    assert {statuses[spot[1:]] for spot in found.randoms} == {"ok"}
    assert {statuses[spot[1:]] for spot in found.left_out} == {"undecodable"}
    assert len(found.left_out) == min(MAX_LEFT_OUT, sum(status != "ok" for status in statuses.values()))


def test_the_draw_favours_no_place_in_a_shard(tmp_path: Path) -> None:
    write_output(tmp_path, {f"{n}.tar": [answered(str(i), 0, 0, 0.0) for i in range(100)] for n in range(40)})
    spots = [spot for n in range(40) for spot in scanned(tmp_path, [f"{n}.tar"]).randoms]
    halves = [sum(index < 50 for _, _, index in spots), sum(index >= 50 for _, _, index in spots)]
    assert sum(halves) == 40 * GALLERY
    assert min(halves) > 400  # of 960; under 400 by chance once in a million


def test_rows_of_chosen_samples_are_the_tables_and_the_predictions(output: Path, found: scan.Scan) -> None:
    samples = read_samples(open_store(str(output)), found, places(NAMES))
    assert len(samples.suspects) == len(samples.randoms) == GALLERY
    assert len(samples.listed) == LISTED
    wanted = {(row["shard"], row["index"]): row for row in (*samples.suspects, *samples.listed, *samples.left_out)}
    rows = asked(output, 'select shard, "index", key, status, error, prediction_after, suspicion from {rows}')
    for shard, index, *values in rows:
        if row := wanted.get((shard, index)):
            assert [row[n] for n in ("key", "status", "error", "prediction_after", "suspicion")] == values
            assert row["psnr"] == (30.0 if row["status"] == "ok" else None)


def test_without_scores_the_flipped_ones_are_suspect(tmp_path: Path) -> None:
    write_output(tmp_path, {"a.tar": [answered(str(i), 0, i % 2) for i in range(10)]})
    assert [index for _, _, index in scanned(tmp_path, ["a.tar"]).suspects] == [1, 3, 5, 7, 9]


@pytest.mark.parametrize(
    ("columns", "order"),
    [
        (
            [{"residual": 2.0, "psnr": 20.0}, {"residual": 9.0, "psnr": 40.0}, {"residual": 5.0, "psnr": 10.0}],
            [1, 2, 0],
        ),
        ([{"psnr": 20.0}, {"psnr": 40.0}, {"psnr": 10.0}, {"psnr": None}], [2, 0, 1]),
    ],
)
def test_without_answers_what_stands_out_or_changed_most_is_suspect(
    tmp_path: Path, columns: list[dict[str, Any]], order: list[int]
) -> None:
    rows = [{"key": str(i), **some} for i, some in enumerate(columns)]
    write_output(tmp_path, {"a.tar": rows}, classifier=None)
    found = scan.scan_tables(open_store(str(tmp_path)), ["a.tar"], {}, None)
    assert [index for _, _, index in found.suspects] == order
    assert found.has_residuals == ("residual" in columns[0])


def test_a_table_that_is_gone_or_broken_is_named_and_the_others_count(tmp_path: Path) -> None:
    write_output(tmp_path, {f"{n}.tar": [answered("k", 0, 0, 0.1)] for n in range(3)})
    (tmp_path / places(["0.tar"])["0.tar"]).unlink()
    (tmp_path / places(["1.tar"])["1.tar"]).write_bytes(b"no parquet")
    found = scanned(tmp_path, ["0.tar", "1.tar", "2.tar"])
    assert found.shards == 1
    assert set(found.unreadable) == {"0.tar", "1.tar"}
    assert found.samples == 1


def test_when_time_is_up_no_more_shards_are_begun(output: Path) -> None:
    found = scanned(output, NAMES, until_s=time.monotonic() - 1)
    assert (found.shards, found.late, found.samples) == (0, 3, 0)


def test_a_hundred_thousand_samples_make_a_page_below_5_mb_and_are_never_all_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = many(25_000, 4)
    write_output(tmp_path, {f"{n}.tar": rows for n in range(4)})
    sizes = []
    batches = scan._batches

    def noted(*arguments: Any) -> Any:
        for batch in batches(*arguments):
            sizes.append(len(batch))
            yield batch

    monkeypatch.setattr(scan, "_batches", noted)
    _, page = build_page(open_store(str(tmp_path)))
    assert "100,000" in page
    assert len(page.encode()) < 1_000_000  # without pictures, which are bounded by themselves
    assert sum(sizes) == 100_000
    assert max(sizes) <= 65_536
    assert pa.total_allocated_bytes() < 64 << 20


def test_settings_are_told_by_dotted_names_and_what_is_not_set_isnt() -> None:
    config = {"input": ["a", "b"], "limit": None, "ask": {"before": True, "top": 5}, "headers": {}}
    assert list(flattened(config)) == [("input", "a, b"), ("ask.before", "true"), ("ask.top", "5")]


def test_the_store_is_only_read(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "put", lambda *_: pytest.fail("written to"))
    name, page = build_page(open_store(str(output)))
    assert name == ""
    assert "No run left word here" in page
