"""`zipstage probe` against a server whose answers anyone can say: the mean of each channel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from making import picture, samples, write_tar
from scripted_json import REQUEST, ScriptedJson
from scripted_server import METADATA, ScriptedServer, reply, scores

from jobs.main import main

TOKEN = "nobody-may-read-this"


@pytest.fixture
def probe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Runs the command; gives its exit code, what it printed and what it said beside that."""
    monkeypatch.setenv("ZIPSTAGE_CLASSIFIER__TOKEN", TOKEN)

    def run(server, *more: str):
        flags = {
            "protocol": "open-inference-v2",
            "url": getattr(server, "url", server),
            "model": "colour",
            "attempts": "1",
        }
        code = main(["probe", *(f"--classifier.{name}={text}" for name, text in flags.items()), *more])
        told = capsys.readouterr()
        assert TOKEN not in told.out + told.err
        return code, told.out, told.err

    return run


def test_what_was_sent_what_came_and_how_it_was_understood(probe, tmp_path: Path):
    write_tar(tmp_path / "in" / "000000.tar", samples(1, 3, 16, 16))
    best = int(picture(3, 16, 16).mean(axis=(0, 1)).argmax())
    with ScriptedServer() as server:
        url = server.url
        code, out, err = probe(server, "--input", str(tmp_path / "in"), "--classifier.labels=[red, green, blue]")
        assert [request.images.shape for request in server.requests if request.number >= 0] == [(1, 3, 16, 16)] * 3
        assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {TOKEN}"}
    assert (code, err) == (0, "")
    for part in (
        "open-inference-v2, with a token",
        f"{url}/v2/models/colour",
        "'image' FP32 [-1, 3, -1, -1], as the server says",
        "FP32 NCHW as binary data",
        "as received, x / 255, no mean or std set",
        "'scores' FP32 [1, 3]",
        "3, with names",
    ):
        assert part in out
    lines = out.splitlines()
    of_ours = lines[lines.index("000000.tar: 000003, 16x16 px") + 1]
    assert f"class {best} {['red', 'green', 'blue'][best]!r}, score 0." in of_ours
    assert " ms)" in of_ours
    assert not (tmp_path / "out").exists()


def test_a_config_file_of_a_job_is_enough_and_its_output_is_not_touched(probe, tmp_path: Path):
    write_tar(tmp_path / "in" / "000000.tar", samples(1))
    config = tmp_path / "nightly.yaml"
    config.write_text(f"input: {tmp_path}/in\noutput: {tmp_path}/out\n")
    with ScriptedServer() as server:
        assert probe(server, str(config))[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "nightly.yaml"]


def test_without_an_input_a_third_image_is_drawn_and_that_is_said(probe):
    with ScriptedServer() as server:
        code, out, err = probe(server)
    assert code == 0
    assert "names no input" in err
    assert out.count("drawn: ") == 3


def test_nobody_there_is_75_and_one_line(probe):
    with ScriptedServer() as server:
        url = server.url
    code, out, err = probe(url)
    assert (code, out) == (75, "")
    assert "no connection" in err.splitlines()[-1]


def test_a_model_that_is_not_there_is_2(probe):
    with ScriptedServer(lambda _: reply('{"error": "no such model"}', "404 Not Found")) as server:
        code, _, err = probe(server)
    assert code == 2
    assert "status 404: no such model. Correct classifier.url, model or version." in err


def test_what_is_known_is_shown_before_an_answer_fails(probe):
    with ScriptedServer(lambda request: None if request.number < 1 else b"HTTP/1.1 200 OK\r\n") as server:
        code, out, err = probe(server)
    assert code == 75
    assert "FP32 NCHW" in out
    assert out.count(" ms)") == 1
    assert "no whole reply" in err


def test_an_answer_that_is_none_is_2_and_the_others_are_shown(probe):
    with ScriptedServer(lambda request: scores([[float("nan"), 0, 0]]) if request.number == 1 else None) as server:
        code, out, _ = probe(server)
    assert code == 2
    assert "no answer: the scores have no finite largest one" in out
    assert out.count(", score 0.") == 2


def test_scores_that_never_change_are_doubted(probe):
    with ScriptedServer(lambda request: scores([[0.5, 0.25, 0.25]]) if request.number >= 0 else None) as server:
        code, out, err = probe(server)
    assert code == 0
    assert "probabilities (they add up to 1)" in out
    assert "same scores, to the last digit" in err


def test_what_a_server_writes_is_shown_without_control_characters(probe):
    described = {**METADATA, "parameters": {"labels": ["\x1b[31mred", "green", TOKEN]}}
    with ScriptedServer(lambda request: reply(json.dumps(described)) if request.number < 0 else None) as server:
        code, out, _ = probe(server)
    assert code == 0
    assert "\x1b" not in out
    assert r"class 0 '\x1b[31mred'" in out
    assert "'***'" in out


def test_a_job_without_a_classifier_is_2(capsys: pytest.CaptureFixture[str]):
    assert main(["probe"]) == 2
    assert "expected `classifier`" in capsys.readouterr().err


def test_its_help_fits_a_screen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["probe", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80


def test_a_file_is_probed_as_an_endpoint_is(capsys: pytest.CaptureFixture[str]):
    signs = Path(__file__).parents[3] / "jobs" / "demo" / "signs.onnx"
    normalised = ["--classifier.input.mean=[0.5]", "--classifier.input.std=[0.5]"]
    assert main(["probe", "--classifier.protocol=onnx", f"--classifier.path={signs}", *normalised]) == 0
    out = capsys.readouterr().out
    for part in (f"file        {signs}", "'image' FP32 [-1, 3, 32, 32], NCHW", "by std 0.5", "'logits' FP32 [1, 10]"):
        assert part in out
    assert "10; the one of the largest score" in out


def test_an_endpoint_over_json_is_probed_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with ScriptedJson() as server:
        classifier = {"protocol": "json-http", "url": server.url, "request": REQUEST, "result": "predictions"}
        config = tmp_path / "probe.yaml"
        config.write_text(json.dumps({"classifier": {**classifier, "headers": {"x-key": TOKEN}}}))
        assert main(["probe", str(config)]) == 0
        assert {request.headers["x-key"] for request in server.requests} == {TOKEN}
    told = capsys.readouterr()
    assert "json-http, with the header x-key" in told.out
    assert told.out.count(", score 0.") == 3
    assert TOKEN not in told.out + told.err
