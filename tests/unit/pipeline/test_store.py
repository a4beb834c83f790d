from __future__ import annotations

import hashlib
import pickle
import re
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from obstore.exceptions import GenericError
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from pipeline import store as store_module
from pipeline.errors import (
    ChangedError,
    ConfigError,
    ExistsError,
    NotFoundError,
    StoreAwayError,
    StoreError,
)
from pipeline.inputs import find_shards
from pipeline.store import MIB, Store, Stored, open_store, supports_create
from pipeline.store_errors import tell


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "root")
    return f"{request.getfixturevalue('s3').uri}/pre/fix"


@pytest.fixture
def store(root: str) -> Store:
    return open_store(root, patience_s=1)


def paths(store: Store, prefix: str = "") -> list[str]:
    return [stored.path for stored in store.list(prefix)]


def test_a_listing_is_sorted_by_bytes_and_tells_what_a_head_tells(store: Store):
    names = ["b", "a/x", "a/x-", "a/x/y", "a-", "ä", "a b", "B", "%41", "\U0001f600", "\uffee"]
    for size, name in enumerate(names):
        store.put(f"{name}.tar", bytes(size))
    listed = list(store.list())
    assert [stored.path for stored in listed] == sorted((f"{n}.tar" for n in names), key=str.encode)
    assert [store.head(stored.path) for stored in listed] == listed
    assert {stored.path: stored.size for stored in listed} == {f"{n}.tar": i for i, n in enumerate(names)}


def test_a_listing_below_a_folder_holds_no_neighbour_of_a_longer_name(store: Store):
    for name in ("a/1", "ab/2", "a-/3"):
        store.put(name, b"")
    assert paths(store, "a") == paths(store, "a/") == ["a/1"]


def test_a_missing_folder_lists_nothing_and_none_is_made(root: str):
    assert paths(open_store(f"{root}/nowhere")) == []
    assert not Path(root).exists()


def test_a_missing_object_is_told_by_name(store: Store):
    for ask in (store.get, store.head):
        with pytest.raises(NotFoundError, match="nowhere/x: can't read: there is no such object"):
            ask("nowhere/x")


def test_reads_seek_both_ways_and_give_what_was_written(store: Store):
    data = hashlib.shake_128(b"seed").digest(2 * MIB + 12_345)
    store.put("big", data)
    with store.open(store.head("big"), range_mib=1) as file:
        assert file.read(10) == data[:10]
        assert file.seek(2 * MIB) == 2 * MIB
        assert file.read() == data[2 * MIB :]
        assert file.seek(-5, 2) == len(data) - 5
        assert file.read(100) == data[-5:]
        file.seek(7)
        assert file.read() == data[7:]
        assert file.read() == b""


def test_no_request_asks_for_more_than_a_range(store: Store, monkeypatch: pytest.MonkeyPatch):
    store.put("big", bytes(3 * MIB))
    asked: list[int] = []
    real = Store.get_range

    def counted(self: Store, stored: Any, start: int, end: int) -> bytes:
        asked.append(end - start)
        return real(self, stored, start, end)

    monkeypatch.setattr(Store, "get_range", counted)
    with store.open(store.head("big"), range_mib=1) as file:
        assert len(file.read()) == 3 * MIB
    assert max(asked) == MIB


def test_an_object_that_changed_since_it_was_listed_is_not_read(store: Store):
    store.put("a", b"first")
    listed = store.head("a")
    store.put("a", b"other")
    with pytest.raises(ChangedError, match="changed since it was listed"):
        store.open(listed).read()


def test_of_many_conditional_puts_one_wins(store: Store):
    def attempt(i: int) -> bool:
        try:
            store.put("a/b/c", b"%d" % i, create=True)
        except ExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = [i for i, wins in enumerate(pool.map(attempt, range(16))) if wins]
    assert len(won) == 1
    assert store.get("a/b/c") == b"%d" % won[0]


def test_a_server_that_honours_conditions_is_known_as_such(store: Store):
    store.put("settings.json", b"{}")
    assert supports_create(store, "settings.json")
    assert paths(store) == ["settings.json"]
    assert store.get("settings.json") == b"{}"


def test_a_writer_shows_nothing_until_it_is_closed(store: Store):
    data = hashlib.shake_128(b"w").digest(12 * MIB)
    with store.writer("shards/x.tar") as file:
        for start in range(0, len(data), 4 * MIB):
            file.write(data[start : start + 4 * MIB])
        assert paths(store) == []
    assert paths(store) == ["shards/x.tar"]
    assert store.get("shards/x.tar") == data
    assert (file.size_bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_a_writer_to_which_nothing_is_written_makes_an_empty_object(store: Store):
    with store.writer("empty"):
        pass
    assert store.head("empty").size == 0


def test_a_writer_that_is_interrupted_leaves_the_old_object_and_nothing_else(root: str, store: Store, request):
    store.put("x", b"old")

    def write_half() -> None:
        with store.writer("x") as file:
            file.write(bytes(20 * MIB))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert store.get("x") == b"old"
    if store.is_local:
        assert [path.name for path in Path(root).iterdir()] == ["x"]
    else:
        bucket = request.getfixturevalue("s3")
        assert "Uploads" not in bucket.client.list_multipart_uploads(Bucket=bucket.name)


def test_deleting_what_is_not_there_is_fine(store: Store):
    store.delete("nowhere/x")
    assert store.delete_below("nowhere") == 0


def test_delete_below_takes_a_folder_and_no_neighbour(store: Store):
    for name in ("a/1", "a/b/2", "a-/3", "ab"):
        store.put(name, b"")
    assert store.delete_below("a") == 2
    assert paths(store) == ["a-/3", "ab"]


def test_delete_below_takes_what_a_killed_writer_left(tmp_path: Path):
    store = open_store(str(tmp_path))
    store.put("_staging/x/1", b"")
    (tmp_path / "_staging/x/2#1").write_bytes(b"half")
    assert paths(store) == ["_staging/x/1"]
    store.delete_below("_staging/x")
    assert not (tmp_path / "_staging/x").exists()


def test_a_store_travels_by_its_uri(store: Store):
    store.put("a", b"1")
    travelled = pickle.loads(pickle.dumps(store))
    assert (travelled.uri, travelled.patience_s, travelled.get("a")) == (store.uri, 1, b"1")


def test_relative_paths_and_file_uris_are_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert open_store("in/../in/").uri == open_store(f"file://{tmp_path}/in").uri == str(tmp_path / "in")


@pytest.mark.parametrize(
    ("uri", "says"),
    [("ftp://host/x", "found ftp://"), ("s3://", "expected a bucket"), ("s3:///x", "expected a bucket")],
)
def test_a_uri_that_cannot_be_is_refused_at_once(uri: str, says: str):
    with pytest.raises(ConfigError, match=says):
        open_store(uri)


# --- what storage says ------------------------------------------------------------------------------


def test_a_path_through_a_file_is_told_in_one_line(tmp_path: Path):
    store = open_store(str(tmp_path))
    store.put("file", b"")
    with pytest.raises(StoreError, match="a part of the path is a file") as raised:
        store.put("file/below", b"")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("number", "says"), [(28, "the disk is full"), (30, "read-only"), (13, "no permission"), (122, "quota")]
)
def test_the_systems_refusals_are_named(number: int, says: str):
    error = GenericError(f"Generic LocalFileSystem error: Unable to copy data to file: ... (os error {number})")
    told = tell(error, "write", "/out/x")
    assert told.exit_code == 1
    assert str(told).startswith("/out/x: can't write: ")
    assert says in str(told)


@pytest.mark.s3
def test_a_missing_bucket_is_named_whatever_is_tried(s3: Any):
    store = open_store(f"{s3.uri}-not/x", patience_s=1)
    for attempt in (lambda: list(store.list()), lambda: store.get("a"), lambda: store.put("a", b"")):
        with pytest.raises(StoreError, match="there is no such bucket") as raised:
            attempt()
        assert raised.value.exit_code == 1


@pytest.mark.s3
@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_named_and_never_shown(s3: Any, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv(name, "wrong-and-private")
    store = open_store(s3.uri, patience_s=1)
    for attempt in (lambda: list(store.list()), lambda: store.put("a", b"")):
        with pytest.raises(StoreError, match="the credentials were refused") as raised:
            attempt()
        assert "wrong-and-private" not in str(raised.value)


@pytest.mark.s3
def test_a_profile_alone_reaches_the_server(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = tmp_path / "config"
    environment = s3.environment
    config.write_text(
        f"[profile nightly]\nregion = us-east-1\nendpoint_url = {environment['AWS_ENDPOINT_URL']}\n"
        f"aws_access_key_id = {environment['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {environment['AWS_SECRET_ACCESS_KEY']}\n"
    )
    for name in environment:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "nightly")
    store = open_store(s3.uri, patience_s=1)
    store.put("a", b"1")
    assert store.get("a") == b"1"


def test_an_unknown_profile_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_PROFILE", "nowhere")
    with pytest.raises(StoreError, match="nowhere"):
        open_store("s3://bucket/x")


def test_missing_credentials_are_told(tmp_path: Path, away: None, monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreError, match="found no AWS credentials"):
        open_store("s3://bucket/x")


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint at which nobody listens."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    nobody = str(tmp_path / "no-such-file")
    values = {"ENDPOINT_URL": "http://127.0.0.1:9", "ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "REGION": "r"}
    values |= {"CONFIG_FILE": nobody, "SHARED_CREDENTIALS_FILE": nobody}
    for name, value in values.items():
        monkeypatch.setenv(f"AWS_{name}", value)


def test_a_server_that_stays_away_is_worth_another_try_later(away: None):
    store = open_store("s3://bucket/x", patience_s=0.2)
    for attempt in (lambda: list(store.list()), lambda: store.get("a"), lambda: store.put("a", b"", create=True)):
        with pytest.raises(StoreAwayError, match="storage doesn't answer") as raised:
            attempt()
        assert raised.value.exit_code == 75


def test_a_server_that_comes_back_is_waited_for(away: None, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch):
    answers = iter([Response(status=503), Response(status=500), Response(b"here", headers={"ETag": '"1"'})])
    httpserver.expect_request("/bucket/x/a").respond_with_handler(lambda _: next(answers))
    monkeypatch.setenv("AWS_ENDPOINT_URL", httpserver.url_for(""))
    assert open_store("s3://bucket/x", patience_s=20).get("a") == b"here"


def test_a_conditional_put_whose_connection_was_reset_is_tried_again(away: None, monkeypatch: pytest.MonkeyPatch):
    requests: list[bytes] = []

    def serve() -> None:
        for is_last in (False, True):
            connection, _ = listener.accept()
            with connection:
                requests.append(connection.recv(65536))
                if is_last:
                    connection.sendall(
                        b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
                    )
                else:
                    connection.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )  # reset at close

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        open_store("s3://bucket/x", patience_s=20).put("a", b"data", create=True)
        served.result()
    assert [b"if-none-match: *" in request.lower() for request in requests] == [True, True]


def test_a_server_that_ignores_conditions_is_found_out(
    away: None, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
):
    httpserver.expect_request(re.compile("/bucket/x/.*"), method="PUT").respond_with_data("", headers={"ETag": '"1"'})
    httpserver.expect_request("/bucket/x/settings.json", method="GET").respond_with_data(
        b"{}", headers={"ETag": '"1"', "Last-Modified": "Sat, 01 Nov 2025 00:00:00 GMT"}
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", httpserver.url_for(""))
    assert not supports_create(open_store("s3://bucket/x", patience_s=1), "settings.json")


def test_a_delete_that_is_not_allowed_is_told(away: None, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch):
    httpserver.expect_request("/bucket", method="POST", query_string="delete").respond_with_data(
        "<DeleteResult><Error><Key>x/a</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>"
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", httpserver.url_for(""))
    with pytest.raises(StoreError, match=r"x/a: can't delete: .*AccessDenied"):
        open_store("s3://bucket/x", patience_s=1).delete("a")


def test_a_body_that_breaks_off_is_taken_up_where_it_broke(
    away: None, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
):
    asked: list[tuple[str | None, str | None]] = []

    def answer(request: Request) -> Response:
        asked.append((request.headers.get("If-Match"), request.headers.get("Range")))
        start, _, end = request.headers["Range"].removeprefix("bytes=").partition("-")
        body = b"0123456789"[int(start) : int(end) + 1]
        headers = {"ETag": '"1"', "Content-Length": str(len(body)), "Content-Range": f"bytes {start}-{end}/10"}
        return Response(body[:4] if len(asked) == 1 else body, status=206, headers=headers)

    httpserver.expect_request("/bucket/x/a").respond_with_handler(answer)
    monkeypatch.setenv("AWS_ENDPOINT_URL", httpserver.url_for(""))
    store = open_store("s3://bucket/x", patience_s=20)
    assert store.open(Stored("a", 10, '"1"')).read() == b"0123456789"
    assert asked == [('"1"', "bytes=0-9"), ('"1"', "bytes=4-9")]


# --- inputs -----------------------------------------------------------------------------------------


SHARDS = ["cam1/000.tar", "cam1/001.tar.gz", "cam1/notes.txt", "cam2/000.tar", "cam2/deep/000.tar", "top.tar"]


@pytest.fixture
def inputs(root: str) -> str:
    store = open_store(root)
    for size, name in enumerate(SHARDS):
        store.put(name, bytes(size))
    return root


NAMES_BY_PATTERN = {
    "": ["cam1/000.tar", "cam1/001.tar.gz", "cam2/000.tar", "cam2/deep/000.tar", "top.tar"],
    "/cam2/": ["000.tar", "deep/000.tar"],
    "/cam1/001.tar.gz": ["001.tar.gz"],
    "/*.tar": ["top.tar"],
    "/cam?/000.tar": ["cam1/000.tar", "cam2/000.tar"],
    "/**/000.tar": ["cam1/000.tar", "cam2/000.tar", "cam2/deep/000.tar"],
    "/{cam1,cam2}/000.tar": ["cam1/000.tar", "cam2/000.tar"],
    "/cam{1..2}": ["cam1/000.tar", "cam1/001.tar.gz", "cam2/000.tar", "cam2/deep/000.tar"],
    "/cam1/{000.tar,001.tar.gz}": ["000.tar", "001.tar.gz"],
}


def test_an_input_names_its_shards_below_its_prefix(inputs: str):
    found = {pattern: find_shards([inputs + pattern]) for pattern in NAMES_BY_PATTERN}
    assert {pattern: [shard.name for shard in shards] for pattern, shards in found.items()} == NAMES_BY_PATTERN
    for shard in (shard for shards in found.values() for shard in shards):
        assert shard.uri == f"{shard.store_uri}/{shard.stored.path}"
        assert open_store(shard.store_uri).head(shard.stored.path) == shard.stored


def test_several_inputs_are_one_list_and_a_shard_named_twice_counts_once(inputs: str):
    found = find_shards([f"{inputs}/cam1/*.tar", f"{inputs}/top.tar", f"{inputs}/cam1"])
    assert [shard.name for shard in found] == ["000.tar", "001.tar.gz", "top.tar"]


def test_two_shards_of_one_name_are_refused_and_both_named(inputs: str):
    with pytest.raises(ConfigError, match=r"both have the name '000\.tar'") as raised:
        find_shards([f"{inputs}/cam1", f"{inputs}/cam2"])
    assert f"{inputs}/cam1/000.tar" in str(raised.value)
    assert f"{inputs}/cam2/000.tar" in str(raised.value)


def test_an_input_without_shards_is_refused_in_one_line(inputs: str):
    for pattern in ("/nowhere", "/nowhere.tar", "/cam1/{000,009}.tar", "/n*.tar", "/cam1/{000.tar"):
        with pytest.raises(ConfigError) as raised:
            find_shards([inputs + pattern])
        assert f"{inputs}{pattern}" in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_name_that_would_leave_the_output_is_refused(tmp_path: Path):
    (tmp_path / "a\\b.tar").write_bytes(b"")
    with pytest.raises(ConfigError, match="Rename it"):
        find_shards([str(tmp_path)])


def test_a_folder_with_brackets_in_its_name_is_a_folder(tmp_path: Path):
    folder = tmp_path / "run [1]"
    folder.mkdir()
    (folder / "0.tar").write_bytes(b"")
    assert [shard.name for shard in find_shards([str(folder)])] == ["0.tar"]


def test_identity_follows_the_content_and_the_place(tmp_path: Path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.tar").write_bytes(b"1")

    def identity(folder: str) -> str:
        return find_shards([str(tmp_path / folder)])[0].identity

    first = identity("a")
    assert identity("a") == first
    assert identity("b") != first
    assert len(first) == 12
    open_store(str(tmp_path / "a")).put("0.tar", b"2")
    assert identity("a") != first


def test_empty_folders_go_and_those_with_a_file_stay(tmp_path: Path):
    store = open_store(str(tmp_path))
    store.put("_staging/a/x.tar/1/0.arrow", b"")
    for folder in ("_staging/a/y.tar/2", "_staging/b", "_staging/a/x.tar/3"):
        (tmp_path / folder).mkdir(parents=True)
    store.drop_empty_folders("_staging")
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_dir()} == {
        "_staging",
        "_staging/a",
        "_staging/a/x.tar",
        "_staging/a/x.tar/1",
    }
    store.delete_below("_staging")
    store.drop_empty_folders("_staging")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_run_takes_away_under_a_write_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, times = store_module.obstore.put, iter([True, True, False])

    def put_late(*arguments: Any, **options: Any) -> Any:
        if next(times):
            raise FileNotFoundError("the folder is gone")
        return put(*arguments, **options)

    monkeypatch.setattr(store_module.obstore, "put", put_late)
    store = open_store(str(tmp_path))
    store.put("a/b", b"x", create=True)
    assert store.get("a/b") == b"x"
