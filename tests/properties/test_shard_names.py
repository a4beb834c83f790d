from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext

from pipeline.shards import key_and_suffix

NAMES = st.text(st.sampled_from("ab./\n_-é "), max_size=12) | st.text(max_size=20)


@given(NAMES)
@example("a/.b")
@example("a/b/.c")
@example(".x/a/.c")
@example(".x/.c")
@example("a//.c")
@example("./a.png")
@example("x\n.d/a.png")
@example("a.tar/b.seg.png")
@settings(deadline=None, max_examples=1000)
def test_key_and_suffix_are_those_of_webdataset(name: str):
    assert (key_and_suffix(name) or (None, None)) == base_plus_ext(name)
