"""What is tried against each server that speaks the Open Inference Protocol: first all that is wrong, then the job."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from foreign import (
    NORMALISED,
    TOKEN,
    Server,
    classifier,
    free_port,
    gateway,
    logits_of,
    signs,
    told,
    write_labels,
    write_shard,
    zipstage,
)

from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers import build

COUNT = 20


def assert_answers_are_the_networks_own(server: Server, model: str, folder: Path, fields: dict[str, Any]) -> None:
    """Ask about drawn signs through the client; onnxruntime, asked directly, says the same."""
    images, batch = signs(COUNT), 8
    values = {**fields, "labels": str(write_labels(folder))} if fields.get("labels") else fields
    config = ClassifierConfig(protocol="open-inference-v2", url=server.url, model=model, **values)

    async def asked() -> list[Any]:
        async with build(config) as client:
            return [await client.predict(images[at : at + batch]) for at in range(0, COUNT, batch)]

    answers = asyncio.run(asked())
    expected = logits_of(images)
    assert [error for some in answers for error in some.errors] == [None] * COUNT
    assert np.concatenate([some.classes for some in answers]).tolist() == expected.argmax(1).tolist()
    print(f"\n{model} {fields}: {COUNT} of {COUNT} classes as onnxruntime says, {answers[0].came}")
    if answers[0].scores is not None:
        found = np.concatenate([some.scores for some in answers])
        print(f"  largest difference of a score: {np.abs(found - expected).max():.1e}")
        np.testing.assert_allclose(found, expected, atol=1e-3)


def probe_what_is_wrong(server: Server, labels: Path, extra: dict[str, object]) -> None:
    """Every mistake a config can make has a line that names it, and the exit code that fits."""
    right = {**{name.replace(".", "__"): text for name, text in NORMALISED.items()}, **extra}

    def wrong(title: str, url: str, model: str, code: int, *said: str, token: str | None = None, **fields: Any) -> None:
        done = zipstage("probe", *classifier(url, model, **{**right, **fields}), token=token)
        told(title, done)
        assert done.returncode == code
        line = done.stderr.splitlines()[-1]
        for part in (f"'{model}' at {url}", "open-inference-v2", *said):
            assert part in line, (part, line)

    url = server.url
    wrong(
        "nobody at the port", f"http://127.0.0.1:{free_port()}", "signs", 75, "no connection", "correct classifier.url"
    )
    if server.grpc_url:
        wrong("the gRPC port", server.grpc_url, "signs", 75, "no HTTP/1.1", "gRPC", "Correct classifier.url")
    wrong("https", url.replace("http:", "https:"), "signs", 75, "no TLS connection", "http:// there")
    wrong("a path too much", f"{url}/v2", "signs", 2, "404", "classifier.url ends before /v2")
    wrong("another model", url, "sings", 2, "404", "sings", "Correct classifier.url, model or version")
    wrong("another shape", url, "signs", 2, "[-1, 3, 32, 32], but input.size is 64x64", input__size=64)
    wrong("another layout", url, "signs", 2, "input.layout is NHWC, which puts 32 channels", input__layout="NHWC")
    wrong("another datatype", url, "signs", 2, "is FP32", "but input.dtype is uint8", input__dtype="uint8")
    wrong("another input", url, "signs", 2, "expected an input 'img'", "Did you mean 'image'?", input__name="img")
    wrong("another output", url, "signs", 2, "an output 'logit'", "Did you mean 'logits'?", output="logit")
    plain = {"input__mean": "[0]", "input__std": "[1]", "input__size": 32}
    wrong("names without labels", url, "signs-files", 2, "set classifier.labels", output="label", **plain)
    few = labels.with_name("few.txt")
    few.write_text("stop\nyield\n")
    wrong("other labels", url, "signs", 2, "2 classes that the labels name, found 10", labels=few)
    with gateway(server) as before:
        wrong("no token", before.url, "signs", 2, "status 401: <html>Sign in first", "Set the token")
        wrong("another token", before.url, "signs", 2, "401", "it is set, and not taken", token="another")
        before.mode = "half"
        wrong("half an answer", before.url, "signs", 75, "no whole reply", token=TOKEN)
        before.mode = "slow"
        wrong("too slow", before.url, "signs", 75, "nothing within 0.5 s", token=TOKEN, timeout_s=0.5)


def probe_what_is_right(server: Server, labels: Path, folder: Path, extra: dict[str, object]) -> None:
    """The job's own image is the third, the answers are the network's own, and the token is nowhere."""
    images = signs(1)
    write_shard(folder / "in" / "000000.tar", images)
    right = {**{name.replace(".", "__"): text for name, text in NORMALISED.items()}, "labels": labels, **extra}
    with gateway(server) as before:
        done = zipstage("probe", "--input", folder / "in", *classifier(before.url, "signs", **right), token=TOKEN)
    told("all is right", done)
    assert done.returncode == 0
    best = int(logits_of(images)[0].argmax())
    lines = done.stdout.splitlines()
    assert f"class {best} " in lines[lines.index("000000.tar: 000000, 32x32 px") + 1]
    assert "'logits' FP32 [1, 10]" in done.stdout
    assert "with a token" in done.stdout


def purify_then_query(server: Server, folder: Path, extra: dict[str, object]) -> None:
    """Wrong settings end the job before it begins; a port where nobody is costs a `query`, and no image."""
    images = signs(COUNT)
    write_shard(folder / "in" / "000000.tar", images)
    right = {**{name.replace(".", "__"): text for name, text in NORMALISED.items()}, "name": "signs", **extra}
    places = ["--input", folder / "in", "--output", folder / "out", "--purifier.method", "median"]
    places += ["--cluster.actors", 1, "--cluster.object-store-mib", 200]

    done = zipstage("purify", *places, *classifier(server.url, "sings", **right))
    told("purify, another model", done)
    assert done.returncode == 2
    assert not (folder / "out").exists() or not list((folder / "out").glob("records/*"))

    done = zipstage("purify", *places, *classifier(f"http://127.0.0.1:{free_port()}", "signs", **right))
    told("purify, nobody at the port", done)
    assert done.returncode == 75
    assert (folder / "out" / "shards" / "000000.tar").exists()

    done = zipstage("query", *places, *classifier(server.url, "signs", **right))
    told("query, all is right", done)
    assert done.returncode == 0
    rows = duckdb.sql(
        f"select prediction_before, prediction_after, scores_before[1].score from "
        f"read_parquet('{folder}/out/predictions/signs/000000.tar.parquet') order by index"
    ).fetchall()
    expected = logits_of(images)
    assert [row[0] for row in rows] == expected.argmax(1).tolist()
    np.testing.assert_allclose([row[2] for row in rows], expected.max(1), atol=1e-3)
    print(f"  predictions: {COUNT} of {COUNT} answers before as onnxruntime says")
    assert zipstage("verify", folder / "out").returncode == 0
