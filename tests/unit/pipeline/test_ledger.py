from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import ledger
from pipeline.errors import ConfigError
from pipeline.store import Store


class Careless(Store):
    """A server that ignores If-None-Match: it overwrites, and says that all is well."""

    def put(self, path: str, data: bytes, *, create: bool = False) -> None:
        super().put(path, data)


class Late(Careless):
    """Another driver's settings arrive right after ours."""

    def put(self, path: str, data: bytes, *, create: bool = False) -> None:
        super().put(path, data)
        other = {"fingerprint": ledger.canonical_digest({"a": 2}), "settings": {"a": 2}}
        super().put(path, json.dumps(other).encode())


@pytest.mark.parametrize("kind", [Store, Careless])
def test_settings_of_others_stay_as_they_are_and_the_difference_is_named(tmp_path: Path, kind: type[Store]):
    store = kind(str(tmp_path), 1)
    ledger.claim_settings(store, {"a": 1})
    before = store.get(ledger.SETTINGS_PATH)
    with pytest.raises(ConfigError, match="a was 1, is 2"):
        ledger.claim_settings(store, {"a": 2})
    assert store.get(ledger.SETTINGS_PATH) == before
    ledger.claim_settings(store, {"a": 1})


def test_who_was_overwritten_in_the_race_for_a_new_prefix_notices(tmp_path: Path):
    with pytest.raises(ConfigError, match="a was 2, is 1"):
        ledger.claim_settings(Late(str(tmp_path), 1), {"a": 1})


@pytest.mark.parametrize("content", [b"", b"[]", b'{"fingerprint": 3}'])
def test_settings_that_are_none_of_ours_are_named(tmp_path: Path, content: bytes):
    (tmp_path / "settings.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"settings\.json"):
        ledger.claim_settings(Store(str(tmp_path), 1), {"a": 1})
