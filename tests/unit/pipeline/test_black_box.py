"""Whose answers lie under a name: another file or model is another classifier, another address is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.black_box import claim_name, identify, list_predicted
from pipeline.classifier_config import ClassifierConfig
from pipeline.errors import ClassifierError, StoreError
from pipeline.store import Store, open_store

RECORDS = [f"predictions/box/{name}.tar.0123456789ab.json" for name in ("a", "cam/b", "c")]


def endpoint(**fields: Any) -> ClassifierConfig:
    return ClassifierConfig(
        **{"protocol": "open-inference-v2", "url": "http://h", "model": "signs", "name": "box", **fields}
    )


@pytest.fixture
def output(tmp_path: Path) -> Store:
    """An output that `box` has answered for."""
    output = open_store(str(tmp_path))
    assert claim_name(endpoint(), output) is False
    for path in RECORDS:
        output.put(path, b"{}")
    return output


def predicted(config: ClassifierConfig, output: Store) -> list[str]:
    return sorted(list_predicted(config, output))


ALL = ["a.tar", "c.tar", "cam/b.tar"]


def test_a_set_name_keeps_its_answers_when_its_server_moves_or_its_token_changes(output: Store) -> None:
    moved = endpoint(url="https://elsewhere", token="new", batch=7, timeout_s=1)
    assert predicted(moved, output) == ALL
    assert claim_name(moved, output) is False
    assert predicted(moved, output) == ALL


@pytest.mark.parametrize("change", [{"model": "other"}, {"version": "2"}, {"input": {"size": 9}}, {"output": "logits"}])
def test_another_classifier_under_a_set_name_has_answered_for_nothing(output: Store, change: dict[str, Any]) -> None:
    other = endpoint(**change)
    assert predicted(other, output) == []
    assert predicted(endpoint(), output) == ALL  # to look is not to touch
    assert claim_name(other, output) is True
    assert predicted(other, output) == predicted(endpoint(), output) == []
    assert claim_name(other, output) is False


def test_withdrawing_that_ends_half_way_is_finished_by_the_next_run(
    output: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted: list[str] = []
    delete = Store.delete

    def failing(store: Store, path: str) -> None:
        if deleted:
            raise StoreError("the disk is gone")
        deleted.append(path)
        delete(store, path)

    monkeypatch.setattr(Store, "delete", failing)
    with pytest.raises(StoreError):
        claim_name(endpoint(model="other"), output)
    monkeypatch.undo()
    assert predicted(endpoint(model="other"), output) == []
    assert claim_name(endpoint(model="other"), output) is True
    assert list(output.list("predictions")) == []


@pytest.mark.parametrize("claim", [b"", b"[]", b"not JSON"])
def test_a_claim_that_is_none_of_ours_counts_as_anothers(output: Store, claim: bytes) -> None:
    output.put("classifiers/box.json", claim)
    assert predicted(endpoint(), output) == []
    assert claim_name(endpoint(), output) is True


def test_a_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    def box(name: str, data: bytes) -> dict[str, Any]:
        (tmp_path / name).write_bytes(data)
        return identify(ClassifierConfig(protocol="onnx", path=str(tmp_path / name))).asked_with

    assert box("a.onnx", b"one") == box("b.onnx", b"one")
    assert box("a.onnx", b"one") != box("a.onnx", b"two")
    assert str(tmp_path) not in str(box("a.onnx", b"one"))
    with pytest.raises(ClassifierError, match=r"gone\.onnx: expected a file.*Correct classifier\.path"):
        identify(ClassifierConfig(protocol="onnx", path=str(tmp_path / "gone.onnx")))


def test_labels_decide_what_is_answered_and_none_change_no_name() -> None:
    plain = identify(endpoint(name=None)).name
    assert identify(endpoint(name=None, labels=None)).name == plain
    first, second = (identify(endpoint(name=None, labels=names)).name for names in (["a", "b"], ["b", "a"]))
    assert len({plain, first, second}) == 3
