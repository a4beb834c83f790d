"""The whole job over the hostile corpus: each case gets what the corpus says, and nothing else happens."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hostile_corpus
import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from hostile_images import IMAGES, ImageCase
from hostile_tars import TARS, TarCase
from inprocess import run
from making import job, samples, write_tar
from PIL import Image
from webdataset.tariterators import base_plus_ext

from pipeline import ask as asking
from pipeline import job as main_path
from pipeline.classifiers.base import Answers
from pipeline.errors import StoreError
from pipeline.facts import Summary
from pipeline.store import open_store
from pipeline.verify import verify

DOCS = Path(__file__).parents[2] / "docs/hostile-input.md"


class Box:
    """A classifier that says 0 to everything."""

    max_batch = 64

    async def __aenter__(self) -> Box:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def predict(self, images: np.ndarray) -> Answers:
        return Answers(np.zeros(len(images), np.int64), None, [None] * len(images))


BOX = {
    "classifier__protocol": "open-inference-v2",
    "classifier__url": "http://127.0.0.1:1",
    "classifier__model": "box",
    "classifier__name": "box",
}


@dataclass(frozen=True)
class Outcome:
    """What the job over the corpus left behind."""

    folder: Path
    summary: Summary
    peak_bytes: int

    def rows(self, shard: str) -> list[dict[str, Any]]:
        return pq.read_table(self.folder / f"out/tables/{shard}.parquet").to_pylist()


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("hostile") / "below" / "here"
    hostile_corpus.write_images(folder / "in")
    hostile_corpus.write_tars(folder / "in", TARS)
    hostile_corpus.write_names(folder / "in", "ok", "refused")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asking, "build", lambda config, gate: Box())
        patch.setattr(main_path, "build_classifier", lambda config: Box())
        tracemalloc.start()
        summary, _ = run(job(folder, **hostile_corpus.LIMITS, **BOX))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return Outcome(folder, summary, peak)


@pytest.mark.parametrize(("index", "case"), list(enumerate(IMAGES)), ids=[case.about for case in IMAGES])
def test_each_image_gets_what_the_corpus_says(outcome: Outcome, index: int, case: ImageCase):
    row = outcome.rows(hostile_corpus.IMAGES_SHARD)[index]
    assert (row["key"], row["status"], row["label"]) == (hostile_corpus.key_of(index), case.gets, index)
    assert case.says in (row["error"] or "")
    assert (row["error"] is None) == (case.gets == "ok")
    assert (row["sha256_purified"] is not None) == (case.gets == "ok")
    if case.mode is not None:
        assert row["mode"] == case.mode


@pytest.mark.parametrize(("index", "case"), list(enumerate(TARS)), ids=[case.about for case in TARS])
def test_each_shard_gets_what_the_corpus_says(outcome: Outcome, index: int, case: TarCase):
    shard = hostile_corpus.shard_of(index, case)
    if case.rows is None:
        line = outcome.summary.failed[shard]
        where = "before the first sample was whole" if case.last_good is None else f"after the key {case.last_good!r}"
        assert line.startswith(f"shard {shard}: broken {where}: ")
        assert case.says in line
        assert line.isprintable()
        assert not (outcome.folder / "out/shards" / shard).exists()
        return
    rows = outcome.rows(shard)
    assert [(row["key"], row["status"]) for row in rows] == list(case.rows)
    assert [row["index"] for row in rows] == list(range(len(rows)))
    assert any(case.says in (row["error"] or "") for row in rows) or not case.says
    record = next((outcome.folder / "out/records" / shard).parent.glob(f"{Path(shard).name}.????????????.json"))
    assert f'"count": {case.skipped}' in record.read_text()


@pytest.mark.parametrize(("index", "case"), list(enumerate(TARS)), ids=[case.about for case in TARS])
def test_rows_account_for_each_sample_that_the_standard_library_finds(outcome: Outcome, index: int, case: TarCase):
    shard = hostile_corpus.shard_of(index, case)
    if case.rows is None or not case.is_read_alike:
        return
    keys = []
    with tarfile.open(outcome.folder / "in" / shard, encoding="utf-8") as tar:
        for member in tar:
            key, _ = base_plus_ext(member.name)
            if member.isreg() and key and not key.startswith("__meta__") and keys[-1:] != [key]:
                keys.append(key)
    printable = [key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for key in keys]
    assert [row["key"] for row in outcome.rows(shard)] == printable


def test_all_that_was_received_is_committed_or_failed_and_answered(outcome: Outcome):
    summary = outcome.summary
    sound = {hostile_corpus.shard_of(i, case) for i, case in enumerate(TARS) if case.rows is not None}
    broken = {hostile_corpus.shard_of(i, case) for i, case in enumerate(TARS) if case.rows is None}
    names = {f"names/{case.name}" for case in hostile_corpus.NAMES if case.gets == "ok"}
    refused = {repr(f"names/{case.name}")[1:-1] for case in hostile_corpus.NAMES if case.gets == "refused"}
    assert set(summary.committed) == {hostile_corpus.IMAGES_SHARD} | sound | names
    assert set(summary.failed) == broken | refused
    assert set(summary.asked) == set(summary.committed)
    assert summary.unanswered == {}
    assert summary.exit_code == 1


def test_what_was_purified_is_proved_by_verify(outcome: Outcome):
    assert verify(open_store(str(outcome.folder / "out"))).findings == []


def test_nothing_is_written_outside_the_output(outcome: Outcome):
    above = outcome.folder.parent.parent
    assert [path.name for path in above.iterdir()] == ["below"]
    assert {path.name for path in outcome.folder.iterdir()} == {"in", "out"}
    assert not [path for path in (outcome.folder / "out").rglob("*") if path.is_symlink()]
    assert not list((outcome.folder / "out/_staging").rglob("*.arrow"))


def test_memory_is_set_by_the_limits(outcome: Outcome):
    # A sample of 20 MiB while its last member is put together, 24 Mpx of pixels, and the parts that they travel in.
    assert outcome.peak_bytes < 200 << 20


def test_purified_images_open_in_pillow_with_what_they_came_with(outcome: Outcome):
    with tarfile.open(outcome.folder / "out/shards" / hostile_corpus.IMAGES_SHARD) as tar:
        purified = {member.name: tar.extractfile(member).read() for member in tar}
    for index, case in enumerate(IMAGES):
        name = f"{hostile_corpus.key_of(index)}.png"
        assert (name in purified) == (case.gets == "ok")
        if case.gets != "ok":
            continue
        with Image.open(io.BytesIO(purified[name])) as after:
            after.load()
            found = {"alpha": after.mode == "RGBA", "exif": "exif" in after.info, "icc": "icc_profile" in after.info}
        assert tuple(kept for kept, is_there in found.items() if is_there) == case.keeps, case.about


def test_alpha_comes_out_as_the_library_reads_it(outcome: Outcome):
    with tarfile.open(outcome.folder / "out/shards" / hostile_corpus.IMAGES_SHARD) as tar:
        for index, case in enumerate(IMAGES):
            if "alpha" not in case.keeps or case.mode == "I;16":
                continue
            purified = Image.open(tar.extractfile(f"{hostile_corpus.key_of(index)}.png"))
            received = Image.open(io.BytesIO(case.make())).convert("RGBA")
            assert np.array_equal(np.asarray(purified)[..., 3], np.asarray(received)[..., 3]), case.about


def test_webdataset_reads_the_purified_samples_in_the_received_order(outcome: Outcome):
    for shard in outcome.summary.committed:
        path = outcome.folder / "out/shards" / shard
        data = gzip.decompress(path.read_bytes()) if shard.endswith(".gz") else path.read_bytes()
        found = webdataset.tariterators.group_by_keys(
            {"fname": name, "data": content, "__url__": ""}
            for name, content in (
                (item["fname"], item["data"]) for item in webdataset.tariterators.tar_file_iterator(io.BytesIO(data))
            )
        )
        wanted = [row["key"] for row in outcome.rows(shard) if row["status"] == "ok"]
        assert [sample["__key__"] for sample in found] == wanted, shard


@pytest.mark.parametrize("case", [case for case in hostile_corpus.NAMES if case.gets == "stops"], ids=lambda c: c.about)
def test_a_name_that_a_store_cant_list_ends_the_job_before_it_begins(tmp_path: Path, case: hostile_corpus.NameCase):
    write_tar(tmp_path / "in" / case.name, samples(1))
    write_tar(tmp_path / "in/good.tar", samples(1))
    with pytest.raises(StoreError, match=r"can't list: .*invalid path") as raised:
        run(job(tmp_path))
    assert str(raised.value).isprintable()
    assert not (tmp_path / "out/shards").exists()


def test_the_docs_table_is_what_the_corpus_expects():
    assert "\n".join(hostile_corpus.table()) in DOCS.read_text(encoding="utf-8")


def test_the_corpus_is_large_enough_and_says_each_thing_once():
    abouts = [case.about for case in [*IMAGES, *TARS, *hostile_corpus.LONG, *hostile_corpus.NAMES]]
    assert len(abouts) >= 80
    assert len(set(abouts)) == len(abouts)
