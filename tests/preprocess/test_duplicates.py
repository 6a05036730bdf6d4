from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from preprocess.duplicates import judge, shared_uids
from preprocess.records import Identity, Reject, ScannedFile, SourceFile, Stage
from preprocess.tasks import Probe


def scanned(name: str, uid: str | None) -> ScannedFile:
    return ScannedFile(SourceFile(name, f"/in/{name}"), Identity("p", name), uid, 10)


def probe(name: str, sha: str, pixels: str | None) -> Probe:
    source = SourceFile(name, f"/in/{name}")
    reject = None if pixels else Reject(source, Stage.DECODE, "decode_failed", "no")
    return Probe(source, sha, pixels, reject)


def test_an_absent_uid_is_never_a_key() -> None:
    assert shared_uids([scanned("a", None), scanned("b", None), scanned("c", ""), scanned("d", "")]) == ()


def test_same_pixels_are_a_duplicate_and_other_pixels_a_conflict() -> None:
    group = [scanned(name, "1.2") for name in "abc"]
    probes = {"a": probe("a", "3", "x"), "b": probe("b", "1", "x"), "c": probe("c", "2", "y")}
    duplicates, rejects = judge(group, probes)
    assert [(item.scanned.source.source, item.original.source.source) for item in duplicates] == [("a", "b")]
    assert [(item.source.source, item.code) for item in rejects] == [("c", "conflicting_duplicate")]


def test_a_broken_copy_does_not_take_the_place_of_a_good_one() -> None:
    group = [scanned(name, "1.2") for name in "ab"]
    duplicates, rejects = judge(group, {"a": probe("a", "1", None), "b": probe("b", "2", "x")})
    assert duplicates == []
    assert [item.code for item in rejects] == ["decode_failed"]


@given(st.permutations(["a", "b", "c", "d", "e"]), st.lists(st.sampled_from("xyz"), min_size=5, max_size=5))
def test_who_stays_does_not_depend_on_order(order: list[str], pixels: list[str]) -> None:
    probes = {name: probe(name, f"hash {name}", kind) for name, kind in zip("abcde", pixels, strict=True)}
    first = judge([scanned(name, "1") for name in "abcde"], probes)
    again = judge([scanned(name, "1") for name in order], probes)
    assert first == again
    assert len(first[0]) + len(first[1]) == 4
