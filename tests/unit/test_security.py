"""What an attacker would try first: code in data, names that lead out, secrets in what is written, a false server."""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import logging
import pickle
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import trustme
from conftest import Bucket
from inprocess import InProcess, run
from making import encoded, job, picture, samples, tree, write_tar
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from jobs.main import main
from pipeline import job as main_path
from pipeline import tables
from pipeline.classifier_config import ClassifierConfig
from pipeline.classifiers import build
from pipeline.classifiers.tensors import pack, unpack
from pipeline.config_loading import load_config
from pipeline.errors import ClassifierAwayError, ClassifierError, ConfigError
from pipeline.inputs import find_shards, refuse_overlap
from pipeline.ledger import make_plan, staged_path
from pipeline.store import Store, Stored, open_store
from zipstage.errors import PriorError, ZipstageError
from zipstage.priors import load_prior, load_restorer
from zipstage.priors.adm import import_adm

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for package in ("zipstage", "pipeline", "jobs") for path in (ROOT / package).rglob("*.py"))

# --- nothing that comes is run ------------------------------------------------------------------------

UNPICKLERS = {"cPickle", "cloudpickle", "dill", "jsonpickle", "joblib", "marshal", "pandas", "pickle", "shelve"}
TRUSTED_ARCHIVES = {"pipeline/classifiers/torch_export.py"}
RUNNERS = {"eval", "exec", "compile", "__import__"}


def calls(tree_of: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree_of):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keywords(call: ast.Call) -> dict[str | None, str]:
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_unpickles_or_runs_what_it_reads(path: Path):
    name, text = str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    parsed = ast.parse(text)
    imported = {alias.name for node in ast.walk(parsed) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(parsed) if isinstance(node, ast.ImportFrom)}
    found = {module.split(".")[0] for module in imported} & UNPICKLERS
    assert found == set()
    assert "trust_remote_code" not in text
    for called, call in calls(parsed):
        last = called.rpartition(".")[2]
        assert called not in RUNNERS, f"line {call.lineno}"
        if called in ("torch.load", "torch.jit.load", "torch.hub.load"):
            assert keywords(call).get("weights_only") == "True", f"line {call.lineno}"
        if called == "torch.export.load":
            assert name in TRUSTED_ARCHIVES
        if called in ("np.load", "numpy.load"):
            assert keywords(call).get("allow_pickle", "False") == "False", f"line {call.lineno}"
        if called.startswith("yaml."):
            assert last in ("safe_load", "safe_dump"), f"line {call.lineno}"
        if last == "from_pretrained":
            assert keywords(call).get("use_safetensors") == "True", f"line {call.lineno}"


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """Where a bomb leaves its mark; at the end there must be none."""
    place = tmp_path / "it-ran"
    pickle.loads(pickle.dumps(Bomb(place)))
    assert place.exists()  # a bomb that can't go off proves nothing
    place.unlink()
    yield place
    assert not place.exists()


def torch_bomb(mark: Path) -> bytes:
    file = io.BytesIO()
    torch.save({"input_blocks.0.0.weight": Bomb(mark)}, file)
    return file.getvalue()


def numpy_bomb(mark: Path) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Bomb(mark)], dtype=object), allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["torch's archive", "a bare pickle"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".ckpt"])
def test_a_bomb_as_a_prior_is_refused_and_doesnt_go_off(tmp_path: Path, mark: Path, kind: str, suffix: str):
    path = tmp_path / f"prior{suffix}"
    path.write_bytes(torch_bomb(mark) if kind == "torch's archive" else pickle.dumps(Bomb(mark)))
    with pytest.raises(PriorError) as raised:
        import_adm(path, tmp_path / "made")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "made").exists()


def test_a_bomb_as_a_restorer_is_refused_and_doesnt_go_off(tmp_path: Path, mark: Path):
    path = tmp_path / "restorer.safetensors"
    path.write_bytes(torch_bomb(mark))
    with pytest.raises(PriorError):
        load_restorer(path)


def test_a_diffusers_folder_of_pickles_is_refused_and_they_dont_go_off(tmp_path: Path, mark: Path):
    folder = tmp_path / "prior"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    (folder / "unet/config.json").write_text('{"_class_name": "UNet2DModel", "sample_size": 8}')
    (folder / "unet/diffusion_pytorch_model.bin").write_bytes(torch_bomb(mark))
    with pytest.raises(PriorError):
        load_prior(folder)


def test_bombs_among_the_members_of_a_sample_pass_through_as_they_are(tmp_path: Path, mark: Path):
    bombs = {"pt": torch_bomb(mark), "pkl": pickle.dumps(Bomb(mark)), "pyd": pickle.dumps(Bomb(mark))}
    bombs |= {"npy": numpy_bomb(mark), "json": pickle.dumps(Bomb(mark)), "cls": pickle.dumps(Bomb(mark), 0)}
    members = [(f"x.{suffix}", data) for suffix, data in bombs.items()]
    write_tar(tmp_path / "in/a.tar", [[("x.png", encoded(picture(1))), *members]])
    summary, _ = run(job(tmp_path))
    assert summary.statuses == {"ok": 1}
    assert all(data in (tmp_path / "out/shards/a.tar").read_bytes() for data in bombs.values())


@pytest.mark.parametrize("name", [b"arrow.py_extension_type", b"pyarrow.unknown", b"arrow.opaque"])
def test_a_bomb_in_a_staged_part_doesnt_go_off(tmp_path: Path, mark: Path, name: bytes):
    write_tar(tmp_path / "in/a.tar", samples(1))
    config = job(tmp_path)
    summary, engine = run(config)
    assert engine is not None
    output = open_store(config.output)
    output.delete_below("records")
    (task,) = make_plan(config, find_shards(config.input), output, engine.fingerprint).tasks
    bomb = {b"ARROW:extension:name": name, b"ARROW:extension:metadata": pickle.dumps(Bomb(mark))}
    fields = [field.with_metadata(bomb) if field.name == "error" else field for field in tables.STAGED]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema(fields, {"facts": "{}"})):
        pass
    output.put(staged_path("a.tar", task.plan, 0), sink.getvalue().to_pybytes())
    summary, _ = run(config)  # whatever comes of it: no bomb, no traceback
    assert summary.exit_code in (0, 1)


def test_a_bomb_in_an_answer_stays_bytes(mark: Path):
    bombs = np.empty(2, dtype=object)
    bombs[:] = [numpy_bomb(mark), pickle.dumps(Bomb(mark))]
    body, headers = pack({"model_name": "m"}, "outputs", {"label": bombs}, ["label"])
    _, tensors = unpack(body, headers["Inference-Header-Content-Length"], "outputs")
    assert [type(item) for item in tensors["label"]] == [bytes, bytes]


@pytest.mark.parametrize("text", ["!!python/object/apply:os.system [true]", "!!python/name:os.system"])
def test_code_in_a_config_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "job.yaml"
    path.write_text(f"input: {text}\noutput: out\n")
    with pytest.raises(ConfigError, match="not YAML"):
        load_config(path)


# --- names stay inside --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../a.tar", "a/../../b.tar", "./a.tar", "/etc/a.tar", "a//b.tar", "..\\a.tar", "a\0b.tar", "a\nb.tar"]
)
def test_no_name_of_a_listing_leads_out(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Store, "list", lambda *_: iter([Stored(name, 10240, "e")]))
    refused: dict[str, str] = {}
    assert find_shards([str(tmp_path)], refused=refused) == []
    ((shown, reason),) = refused.items()
    assert shown.isprintable()
    assert reason.isprintable()
    with pytest.raises(ConfigError, match="can't be in a path"):
        find_shards([str(tmp_path)])


def test_no_key_of_a_tar_becomes_a_path(tmp_path: Path):
    folder = tmp_path / "a/b/c"
    names = ["../../../evil", "/tmp/evil", "..", "~/evil", "a/../../evil", "C:\\evil"]
    write_tar(folder / "in/x.tar", [[(f"{name}/k{i}.png", encoded(picture(i)))] for i, name in enumerate(names)])
    summary, _ = run(job(folder))
    assert summary.statuses == {"ok": len(names)}
    files = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert not [path for path in files if "evil" in str(path) or path.parts[:3] != ("a", "b", "c")]
    assert {path.parts[3] for path in files} == {"in", "out"}


# --- the output never overwrites the input ------------------------------------------------------------


@pytest.mark.parametrize(
    ("received", "output"),
    [
        ("{0}/in", "{0}/in"),
        ("{0}/in", "{0}/in/"),
        ("{0}/in/", "{0}//in"),
        ("{0}/in", "file://{0}/in"),
        ("file://{0}/in", "{0}/in"),
        ("file://{0}/in%2F", "{0}/in"),
        ("{0}/in", "file://{0}/%69n"),
        ("{0}/in", "{0}/in/../in/out"),
        ("{0}/in", "{0}/link"),
        ("{0}/link", "{0}/in/out"),
        ("{0}/in/sub", "{0}/in"),
        ("{0}/link/sub/a.tar", "file://{0}/in"),
    ],
)
def test_no_spelling_of_the_input_is_taken_as_output(tmp_path: Path, received: str, output: str):
    write_tar(tmp_path / "in/sub/a.tar", samples(1))
    (tmp_path / "link").symlink_to(tmp_path / "in")
    before = tree(tmp_path, "in")
    with pytest.raises(ConfigError, match=r"lies (inside the input|below it)"):
        run(job(tmp_path, input=received.format(tmp_path), output=output.format(tmp_path)))
    assert tree(tmp_path, "in") == before


@pytest.mark.parametrize(
    ("received", "output"),
    [
        ("s3://b/p", "s3://b//p"),
        ("s3://b//p/", "s3://b/p/out"),
        ("s3://b/p", "s3://b/p//"),
        ("s3://b/p/q", "s3://b//p///q/out"),
        ("s3://b", "s3://b/out"),
        ("s3://b/p/*.tar", "s3://b//p"),
    ],
)
def test_no_spelling_of_a_bucket_is_taken_as_output(received: str, output: str):
    shards = [] if "*" not in received else [_shard_at("s3://b/p/a.tar")]
    with pytest.raises(ConfigError, match=r"lies (inside the input|below it)"):
        refuse_overlap(output, [received], shards)


def test_a_percent_sign_in_a_bucket_is_a_letter_and_another_place():
    refuse_overlap("s3://b/a%20b", ["s3://b/a b"], [])


@pytest.mark.s3
def test_a_doubled_slash_in_a_bucket_loses_no_letter_of_a_name(tmp_path: Path, s3: Bucket):
    data = write_tar(tmp_path / "x.tar", samples(1)).read_bytes()
    s3.client.put_object(Bucket=s3.name, Key="in/cam/x.tar", Body=data)
    found = [find_shards([f"{s3.uri}/{path}"])[0] for path in ("in", "/in", "in//", "//in/")]
    assert {(shard.name, shard.uri) for shard in found} == {("cam/x.tar", f"{s3.uri}/in/cam/x.tar")}


def _shard_at(uri: str) -> Any:
    from pipeline.store import Shard

    root, _, name = uri.rpartition("/")
    return Shard(name, uri, root, Stored(name, 1, ""))


# --- secrets ------------------------------------------------------------------------------------------

SEED = "8f14e45fceea167a5a36dedd4bea2543-seed"
TOKEN = "tok-6512bd43d9caa6e02c990b0a82652dca"
KEY = "AKIAC20AD4D76FE97759"
SECRET_KEY = "aab3238922bcc25a6f606eb525ffdc56/secret+key"


def forms(secret: str) -> list[bytes]:
    """A secret as it may stand somewhere: itself, in hex, in base 64."""
    raw = secret.encode()
    return [raw, raw.hex().encode(), base64.b64encode(raw), base64.urlsafe_b64encode(raw), secret.upper().encode()]


def assert_absent(secret: str, *places: bytes | str) -> None:
    for place in places:
        data = place.encode() if isinstance(place, str) else place
        assert not [form for form in forms(secret) if form in data]


@pytest.fixture
def told(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[str]]:
    """All that is printed and logged; the test appends what else it saw."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    seen: list[str] = []
    yield seen
    printed = capfd.readouterr()
    for secret in (SEED, TOKEN, SECRET_KEY):
        assert_absent(secret, printed.out, printed.err, caplog.text, *seen)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """All that is put into storage at any time, staging included."""
    puts: dict[str, bytes] = {}
    put = Store.put

    def note(self: Store, path: str, data: bytes, *, create: bool = False) -> None:
        puts[path] = bytes(data)
        put(self, path, data, create=create)

    monkeypatch.setattr(Store, "put", note)
    return puts


def echoing(request: Request) -> Response:
    """A server that says what it was sent, headers and all."""
    if request.method == "GET":
        return Response(
            f'{{"error": "who is {request.headers["Authorization"]}?"}}', 403, content_type="application/json"
        )
    return Response(str(request.headers), 400)


def test_seed_token_and_keys_stand_in_nothing_that_is_written_printed_or_logged(
    tmp_path: Path, told: list[str], written: dict[str, bytes], httpserver: HTTPServer
):
    httpserver.expect_request("/v2/models/signs").respond_with_json(
        {
            "name": "signs",
            "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 3, 32, 32]}],
            "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 2]}],
        }
    )
    httpserver.expect_request("/v2/models/signs/infer").respond_with_handler(echoing)
    write_tar(tmp_path / "in/a.tar", [*samples(3), [("broken.png", b"no image")]])
    config = job(
        tmp_path,
        purifier__seed=SEED,
        classifier__protocol="open-inference-v2",
        classifier__url=httpserver.url_for("/").rstrip("/"),
        classifier__model="signs",
        classifier__token=TOKEN,
    )
    facts: list[Any] = []
    summary = main_path.purify(config, facts.append, InProcess, run="test")
    assert summary.committed == ["a.tar"]
    assert summary.unanswered.keys() == {"a.tar"}
    told += [repr(config), str(config), str(config.model_dump()), config.model_dump_json(), repr(facts), repr(summary)]
    files = tree(tmp_path, "out")
    assert {"settings.json", "runs", "records", "tables", "shards"} <= {path.split("/")[1] for path in files}
    assert any(path.startswith("_staging") for path in written)
    for secret in (SEED, TOKEN, SECRET_KEY, KEY):
        assert_absent(secret, *files.values(), *written.values(), *files, *written)
    settings = files["out/settings.json"]
    assert hashlib.sha256(b"zipstage seed " + SEED.encode()).hexdigest().encode() in settings  # by its digest alone


def test_a_server_that_repeats_the_token_isnt_repeated(told: list[str], httpserver: HTTPServer):
    httpserver.expect_request("/v2/models/signs").respond_with_handler(echoing)
    config = ClassifierConfig(
        protocol="open-inference-v2", url=httpserver.url_for("").rstrip("/"), model="signs", token=TOKEN
    )
    with pytest.raises(ClassifierError, match=r"who is Bearer \*\*\*") as raised:
        _enter(config)
    told.append(str(raised.value))


@pytest.mark.parametrize(
    "flags",
    [
        ["--purifier.seed", SEED, "--purifier.methd", "x"],
        ["--purifier.seed", f"[{SEED}]"],
        ["--classifier.protocol", "open-inference-v2", "--classifier.token", f"[{TOKEN}]"],
        [
            "--classifier.protocol",
            "open-inference-v2",
            "--classifier.url",
            f"http://u:{TOKEN}@h",
            "--classifier.model",
            "m",
        ],
        ["--output", f"s3://{KEY}:{SECRET_KEY}@bucket/p"],
    ],
)
def test_what_is_wrong_is_said_without_what_is_secret(tmp_path: Path, told: list[str], flags: list[str]):
    write_tar(tmp_path / "in/a.tar", samples(1))
    output = [] if "--output" in flags else ["--output", str(tmp_path / "out")]
    assert main(["plan", "--input", str(tmp_path / "in"), *output, *flags]) in (1, 2)


def test_secrets_of_the_environment_stand_in_no_message(
    tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ZIPSTAGE_PURIFIER__SEED", SEED)
    monkeypatch.setenv("ZIPSTAGE_CLASSIFIER__TOKEN", TOKEN)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert main(["plan", "--input", "s3://b/in", "--output", "s3://b/out", "--storage.patience_s", "0.1"]) == 2
    monkeypatch.delenv("ZIPSTAGE_CLASSIFIER__TOKEN")
    assert main(["plan", "-v", "--input", "s3://b/in", "--output", "s3://b/out", "--storage.patience_s", "0.1"]) == 75


# --- TLS ----------------------------------------------------------------------------------------------


def _enter(config: ClassifierConfig) -> None:
    import asyncio

    async def enter() -> None:
        async with build(config):
            pass

    asyncio.run(enter())


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_server(authority: trustme.CA) -> Iterator[HTTPServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    with HTTPServer("127.0.0.1", ssl_context=context) as server:
        server.expect_request("/v2/models/signs").respond_with_data("no such model", 404)
        yield server


def _tls_config(server: HTTPServer) -> ClassifierConfig:
    url = f"https://127.0.0.1:{server.port}"
    return ClassifierConfig(protocol="open-inference-v2", url=url, model="signs", token=TOKEN, attempts=1)


def test_a_server_that_nobody_vouches_for_is_refused_and_gets_no_token(
    tls_server: HTTPServer, monkeypatch: pytest.MonkeyPatch
):
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ClassifierError, match=r"certificate that can be trusted.*SSL_CERT_FILE") as raised:
        _enter(_tls_config(tls_server))
    assert not isinstance(raised.value, ClassifierAwayError)
    assert "\n" not in str(raised.value)
    assert tls_server.log == []


def test_a_server_whose_ca_is_named_is_asked(
    tls_server: HTTPServer, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(ZipstageError, match="status 404"):
        _enter(_tls_config(tls_server))
    assert [request.headers["Authorization"] for request, _ in tls_server.log] == [f"Bearer {TOKEN}"]


def test_a_certificate_for_another_host_is_refused(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.example").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with HTTPServer("127.0.0.1", ssl_context=context) as server:
        with pytest.raises(ClassifierError, match="certificate that can be trusted"):
            _enter(_tls_config(server))
        assert server.log == []


def test_no_source_switches_the_verification_of_certificates_off():
    for path in SOURCES:
        for called, call in calls(ast.parse(path.read_text(encoding="utf-8"))):
            assert "False" not in (keywords(call).get("verify"), keywords(call).get("verify_ssl")), f"{path}: {called}"
            assert "allow_invalid_certificates" not in keywords(call), f"{path}: {called}"
