"""Night after night over a growing input: only what is new is done, and nothing is left behind."""

from __future__ import annotations

import pytest
from nights import SAMPLES, Night, night

MIB = 1 << 20


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> list[Night]:
    folder = tmp_path_factory.mktemp("nights")
    return [night(folder, number, shards=1) for number in range(20)]


def test_each_night_purifies_what_is_new_and_nothing_else(nights: list[Night]) -> None:
    for one in nights:
        assert list(one.committed) == list(one.new)
        assert set(one.parts) == {"staged"}
        assert one.parts["staged"] == SAMPLES


def test_what_is_new_is_found_by_listings_with_no_object_of_another_night_opened(nights: list[Night]) -> None:
    assert [one.reads for one in nights] == [[]] * len(nights)
    assert len({one.calls["list"] for one in nights[1:]}) == 1


def test_no_call_of_the_storage_is_made_for_the_nights_before(nights: list[Night]) -> None:
    assert len({tuple(sorted(one.calls.items())) for one in nights[1:]}) == 1


def test_no_night_leaves_staged_parts_temporary_files_or_empty_folders(nights: list[Night]) -> None:
    assert [one.strays for one in nights] == [[]] * len(nights)


def test_files_threads_and_memory_of_the_process_stay_as_they_are(nights: list[Night]) -> None:
    early, late = nights[4], nights[-1]
    assert late.files <= early.files
    assert late.threads <= early.threads + 2  # the storage's own come and go
    assert late.pss_bytes <= early.pss_bytes + 16 * MIB
