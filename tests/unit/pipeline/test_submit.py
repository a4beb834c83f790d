from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus

from pipeline import submit as submitting
from pipeline.errors import ClusterError, ConfigError
from pipeline.store import Store, open_store
from pipeline.submit import Submission, submit

ADDRESS = "http://head:8265"


@dataclass
class Details:
    """What Ray knows of a job."""

    status: JobStatus
    driver_exit_code: int | None = None
    message: str = ""


@dataclass
class Client:
    """Ray's job client, of a job that ends as said; errors among the answers are raised."""

    answers: list[Details | Exception]
    log: list[str | BaseException] = field(default_factory=lambda: ["a line\n"])
    submitted: dict[str, Any] = field(default_factory=dict)
    carried: dict[str, bytes] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)

    def submit_job(self, **values: Any) -> str:
        self.submitted = values
        folder = values["runtime_env"].get("working_dir")
        if folder:
            self.carried = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        return str(values["submission_id"])

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        for line in self.log:
            if isinstance(line, BaseException):
                raise line
            yield line

    def get_job_info(self, job_id: str) -> Details:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def stop_job(self, job_id: str) -> bool:
        self.stopped.append(job_id)
        return True


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "POLL_S", 0.0)
    monkeypatch.setattr(submitting, "find_spec", lambda name: name)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://elsewhere:8265")


def outcome(client: Client, monkeypatch: pytest.MonkeyPatch, folder: Path, config: Path | None = None) -> int:
    monkeypatch.setattr(submitting, "JobSubmissionClient", lambda address: client)

    def output() -> Store:
        return open_store(str(folder))

    return submit(Submission("night", ["zipstage", "purify", "a b.yaml"], config), ADDRESS, output, print)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 75, 130])
def test_the_code_is_the_jobs_own(code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    status = JobStatus.SUCCEEDED if code == 0 else JobStatus.FAILED
    client = Client([Details(JobStatus.RUNNING), Details(status, code)])
    assert outcome(client, monkeypatch, tmp_path) == code


def test_the_config_goes_along_and_the_command_is_quoted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "nightly.yaml").write_text("input: in")
    client = Client([Details(JobStatus.SUCCEEDED, 0)])
    outcome(client, monkeypatch, tmp_path, tmp_path / "nightly.yaml")
    assert client.submitted["entrypoint"] == "zipstage purify 'a b.yaml'"
    assert client.submitted["submission_id"] == "night"
    assert client.carried == {"nightly.yaml": b"input: in"}
    assert "a line" in capsys.readouterr().out


def test_of_a_run_that_was_lost_the_summary_has_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    client = Client([Details(JobStatus.FAILED, None, "the head was lost")])
    with pytest.raises(ClusterError, match=r"run night: the head was lost\. Run again"):
        outcome(client, monkeypatch, tmp_path)
    (tmp_path / "runs/night").mkdir(parents=True)
    (tmp_path / "runs/night/summary.json").write_text(json.dumps({"exit_code": 75}))
    assert outcome(client, monkeypatch, tmp_path) == 75


def test_a_job_that_was_stopped_by_others_is_130(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert outcome(Client([Details(JobStatus.STOPPED)]), monkeypatch, tmp_path) == 130


def test_an_interrupted_submitter_stops_its_job_and_waits_for_its_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    client = Client([Details(JobStatus.RUNNING), Details(JobStatus.STOPPED)], [KeyboardInterrupt()])
    assert outcome(client, monkeypatch, tmp_path) == 130
    assert client.stopped == ["night"]
    assert [answer.status for answer in client.answers if isinstance(answer, Details)] == [JobStatus.STOPPED]


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (127, ConfigError, "the cluster's head has no `zipstage` that runs"),
        (137, ClusterError, "its driver was killed by signal 9"),
        (-9, ClusterError, "its driver was killed by signal 9"),
    ],
)
def test_a_driver_that_never_came_to_its_end_says_why(
    code: int, error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    with pytest.raises(error, match=words):
        outcome(Client([Details(JobStatus.FAILED, code)]), monkeypatch, tmp_path)


def test_a_log_that_breaks_off_and_a_server_that_is_away_for_a_moment_end_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    answers = [OSError("refused"), RuntimeError("502"), Details(JobStatus.FAILED, 3)]
    assert outcome(Client(answers, ["x", RuntimeError("closed")]), monkeypatch, tmp_path) == 3


def test_a_server_that_stays_away_is_75(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(submitting, "PATIENCE_S", 0.0)
    with pytest.raises(ClusterError, match=f"address {ADDRESS}: its job server went away while night ran") as caught:
        outcome(Client([OSError("refused")]), monkeypatch, tmp_path)
    assert caught.value.exit_code == 75


@pytest.mark.parametrize(
    ("raised", "error", "words"),
    [
        (ConnectionError("x"), ClusterError, "nothing answers there"),
        (
            AuthenticationError("Forbidden: Invalid token\n\nmore"),
            ConfigError,
            "refused, Forbidden: Invalid token. Set",
        ),
        (ValueError("no JSON"), ConfigError, "expected the job server of a Ray, .* found something else: no JSON"),
    ],
)
def test_an_address_that_can_not_be_says_why(
    raised: Exception, error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def client(address: str) -> Client:
        raise raised

    monkeypatch.setattr(submitting, "JobSubmissionClient", client)
    with pytest.raises(error, match=words) as caught:
        submit(Submission("night", ["zipstage"]), ADDRESS, lambda: open_store(str(tmp_path)), print)
    assert len(str(caught.value).splitlines()) == 1


def test_a_name_that_is_taken_is_told_without_the_servers_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    class Refusing(Client):
        def submit_job(self, **values: Any) -> str:
            raise RuntimeError("Request failed with status code 500: Traceback:\n  File x\nValueError: it exists\n.")

    with pytest.raises(ConfigError, match="run night: the job server refuses it: ValueError: it exists") as caught:
        outcome(Refusing([]), monkeypatch, tmp_path)
    assert "Traceback" not in str(caught.value)


def test_a_server_that_goes_away_at_the_submission_is_75(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    class Gone(Client):
        def submit_job(self, **values: Any) -> str:
            raise OSError("connection reset")

    with pytest.raises(ClusterError, match="run night: the job server went away: connection reset"):
        outcome(Gone([]), monkeypatch, tmp_path)


def test_without_rays_job_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(submitting, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'zipstage\[cluster\]'"):
        submit(Submission("night", ["zipstage"]), ADDRESS, lambda: open_store(str(tmp_path)), print)
