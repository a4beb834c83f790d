"""The examples for consumers, run as people run them; `tests/drills/test_consumers.py` runs those of large packages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from consumed import EXAMPLES, Output, make_output, run_example


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Output:
    return make_output(tmp_path_factory.mktemp("consumed"))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("[!_]*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_to_install(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 30
    assert lines[0].startswith('"""')
    assert lines[2].startswith("Install: pip install ")


def test_a_loader_gives_each_committed_image_once(output: Output) -> None:
    (line,) = run_example("webdataset_loader", output)
    assert line == f"29 images of 2 shards, mean {output.mean():.4f}"


def test_accuracy_by_class_and_the_most_suspect_are_those_of_the_rows(output: Output) -> None:
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in run_example("duckdb_tables", output)]
    answers = [row for row in output.answers() if row["status"] == "ok"]
    found = {row[0]: [float(cell) for cell in row[1:]] for row in cells if len(row) == 5 and row[0].isdigit()}
    for label in range(10):
        rows = [row for row in answers if row["label"] == label]
        counts = [sum(row[f"prediction_{when}"] == label for row in rows) for when in ("before", "after")]
        counts.append(sum(row["flipped"] for row in rows))
        assert found.pop(str(label)) == pytest.approx([len(rows), *(count / len(rows) for count in counts)])
    assert found == {}
    suspects = [row[0] for row in cells if len(row) == 4 and row[0].isdigit()]
    assert suspects == [row["key"] for row in sorted(answers, key=lambda row: (-row["suspicion"], row["key"]))[:10]]


def test_the_info_has_each_field_that_timm_reads_of_a_split(output: Output) -> None:
    split = json.loads((output.folder / "_info.json").read_text())["splits"]["all"]
    assert split == {
        "name": "all",
        "filenames": ["shards/a.tar", "shards/cam/b.tar"],
        "shard_lengths": [19, 10],
        "num_samples": 29,
    }
