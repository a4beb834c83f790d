from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.main import main
from pipeline import submit as submitting
from pipeline.store import Store
from pipeline.submit import Submission

NIGHTLY = str(Path(__file__).parents[3] / "jobs/configs/nightly.yaml")
ADDRESS = ["--address", "http://head:8265"]


@pytest.fixture(autouse=True)
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Submission, str]]:
    """What was handed to the cluster, and where."""
    handed: list[tuple[Submission, str]] = []

    def submit(submission: Submission, address: str, open_output: Callable[[], Store], tell: Any) -> int:
        handed.append((submission, address))
        return 75

    monkeypatch.setattr(submitting, "submit", submit)
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "ZIPSTAGE_DATE"):
        monkeypatch.delenv(name, raising=False)
    return handed


def test_the_same_words_go_to_the_cluster_with_date_and_run_made_plain(
    submitted: list[tuple[Submission, str]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ZIPSTAGE_DATE", "2026-11-19")
    words = ["submit", "--run=a", *ADDRESS, NIGHTLY, "--limit", "3", "--overwrite", "--date", "2026-11-20"]
    assert main(words) == 75
    ((submission, address),) = submitted
    assert address == "http://head:8265"
    assert submission.run == "a"
    assert submission.config == Path(NIGHTLY)
    wanted = "zipstage purify nightly.yaml --limit 3 --overwrite --date 2026-11-20 --run a"
    assert list(submission.command) == wanted.split()


def test_without_a_date_in_the_places_none_is_said_and_each_run_has_a_name(submitted: list[tuple[Submission, str]]):
    for _ in range(2):
        main(["submit", "--input", "s3://in/", "--output", "s3://out/", "--address=http://head:8265"])
    (one, _), (other, _) = submitted
    assert list(one.command)[:-1] == ["zipstage", "purify", "--input", "s3://in/", "--output", "s3://out/", "--run"]
    assert one.run != other.run


@pytest.mark.parametrize("variable", ["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"])
def test_the_address_may_come_from_the_environment(
    variable: str, submitted: list[tuple[Submission, str]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(variable, "http://other:8265")
    main(["submit", NIGHTLY])
    main(["submit", NIGHTLY, *ADDRESS])
    assert [address for _, address in submitted] == ["http://other:8265", "http://head:8265"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([NIGHTLY], "--address: expected the job server's, http://host:8265, found none"),
        ([NIGHTLY, "--address", "head:6379"], "found 'head:6379'"),
        ([NIGHTLY, *ADDRESS, "--purifer.preset", "fast"], "Did you mean '--purifier.preset'?"),
        ([NIGHTLY, *ADDRESS, "--date", "tonight"], "expected YYYY-MM-DD, today or yesterday"),
        ([NIGHTLY, *ADDRESS, "--purifier.seed", "77"], "ZIPSTAGE_PURIFIER__SEED on the cluster's nodes"),
        (["gone.yaml", *ADDRESS], "config gone.yaml: can't be read"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_submitted(
    words: list[str], told: str, submitted: list[tuple[Submission, str]], capsys: pytest.CaptureFixture[str]
):
    assert main(["submit", *words]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert "77" not in said
    assert len(said.splitlines()) == 1
    assert submitted == []
