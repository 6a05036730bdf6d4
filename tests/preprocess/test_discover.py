"""Inputs become sources under stable names, whatever their order, spelling or content."""

from __future__ import annotations

import csv
import os
import random
import tempfile
import unicodedata
import zipfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.discover import contains, discover, inside, source_inside
from preprocess.errors import UsageError
from preprocess.names import is_dicom_name, safe_name, safe_path, stem, with_suffix
from preprocess.records import SourceFile
from tests.instances import DATA, needs_data
from tests.preprocess.trees import DICOM, RSNA_COLUMNS, RSNA_ROWS, archive, dicom, rsna, text


def names(*inputs: Path | str, **options: str) -> list[str]:
    return [source.source for source in discover([str(i) for i in inputs], **options).sources]


@pytest.fixture
def memory() -> fsspec.AbstractFileSystem:
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    return system


# ── folders ──────────────────────────────────────────────────────────────────────────────────────────


def test_folder_walk_takes_dicom_by_name_and_by_content_and_counts_the_rest(tmp_path: Path) -> None:
    dicom(tmp_path / "b" / "IM0001")
    text(tmp_path / "a" / "broken.DCM", "not dicom at all")
    dicom(tmp_path / ".hidden" / "x.dicom")
    text(tmp_path / "train.csv", "image_id,cancer", "1,0")
    text(tmp_path / "notes.txt", "hello")
    (tmp_path / "empty").write_bytes(b"")
    found = discover([str(tmp_path)])
    assert [(s.source, s.explicit) for s in found.sources] == [
        (".hidden/x.dicom", True),
        ("a/broken.DCM", True),
        ("b/IM0001", False),
    ]
    assert found.ignored == 3


def test_sources_sort_by_utf8_bytes_not_by_code_units(tmp_path: Path) -> None:
    for name in ("é.dcm", "z.dcm", "Z.dcm", "\U0001f600.dcm", "\uffee.dcm"):
        dicom(tmp_path / name)
    assert names(tmp_path) == ["Z.dcm", "z.dcm", "é.dcm", "\uffee.dcm", "\U0001f600.dcm"]


def test_links_to_folders_are_followed_once_and_never_rename_the_real_file(tmp_path: Path) -> None:
    dicom(tmp_path / "in" / "z" / "1.dcm")
    dicom(tmp_path / "outside" / "2.dcm")
    (tmp_path / "in" / "a").symlink_to(tmp_path / "in" / "z")
    (tmp_path / "in" / "z" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "self").symlink_to("self")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "outside")
    assert names(tmp_path / "in") == ["more/2.dcm", "self", "z/1.dcm"]


def test_dangling_link_is_a_source_because_nobody_can_look_into_it(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path) == ["gone"]


def test_pipe_in_a_walk_is_ignored_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.dcm")
    dicom(tmp_path / "1.dcm")
    found = discover([str(tmp_path)])
    assert [s.source for s in found.sources] == ["1.dcm"]
    assert found.ignored == 1


def test_folder_that_cannot_be_listed_becomes_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dicom(tmp_path / "closed" / "1.dcm")
    dicom(tmp_path / "open" / "2.dcm")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = discover([str(tmp_path)])
    assert [(s.source, s.explicit) for s in found.sources] == [("closed", True), ("open/2.dcm", True)]


@pytest.mark.parametrize("content", ["nothing", "text"])
def test_folder_without_dicom_is_a_usage_error_that_names_it(tmp_path: Path, content: str) -> None:
    if content == "text":
        text(tmp_path / "a.txt", "x")
    with pytest.raises(UsageError, match=f"no DICOM found under {tmp_path}"):
        discover([str(tmp_path)])


def test_macos_resource_fork_is_not_dicom_by_name(tmp_path: Path) -> None:
    text(tmp_path / "._1.dcm", "resource fork")
    dicom(tmp_path / "1.dcm")
    assert names(tmp_path) == ["1.dcm"]


# ── files, globs, missing inputs ─────────────────────────────────────────────────────────────────────


def test_file_named_by_the_user_is_a_source_whatever_it_holds(tmp_path: Path) -> None:
    (source,) = discover([str(text(tmp_path / "notes.txt", "x"))]).sources
    assert (source.source, source.explicit, source.path) == ("notes.txt", True, str(tmp_path / "notes.txt"))


def test_file_inside_a_given_folder_is_one_source_and_explicit(tmp_path: Path) -> None:
    odd = text(tmp_path / "p" / "odd.txt", "x")
    dicom(tmp_path / "p" / "1")
    found = discover([str(odd), str(tmp_path)])
    assert [(s.source, s.explicit) for s in found.sources] == [("p/1", False), ("p/odd.txt", True)]
    assert found.ignored == 0


def test_same_file_through_a_link_to_its_folder_is_one_source(tmp_path: Path) -> None:
    dicom(tmp_path / "data" / "1.dcm")
    (tmp_path / "alias").symlink_to(tmp_path / "data")
    assert names(tmp_path / "alias", tmp_path / "data") == ["1.dcm"]


@pytest.mark.parametrize("missing", ["/no/such/file.dcm", "nothing-*.dcm", "memory://no/such", "bad\0name"])
def test_missing_input_is_a_usage_error_that_names_it(missing: str) -> None:
    with pytest.raises(UsageError, match=r"no.*such|nothing|bad"):
        discover([missing])


def test_no_inputs_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no inputs"):
        discover([])


def test_glob_with_double_star_is_walked_from_its_fixed_part(tmp_path: Path) -> None:
    dicom(tmp_path / "a" / "b" / "1.dcm")
    dicom(tmp_path / "a" / "2.dcm")
    text(tmp_path / "a" / "3.txt", "x")
    assert names(tmp_path / "a" / "**" / "*.dcm") == ["2.dcm", "b/1.dcm"]
    assert names(tmp_path / "a" / "**") == ["2.dcm", "b/1.dcm"]
    assert discover([f"{tmp_path}/a/**"]).ignored == 1


def test_existing_name_with_brackets_is_a_file_not_a_glob(tmp_path: Path) -> None:
    assert names(dicom(tmp_path / "im[1].dcm")) == ["im[1].dcm"]


def test_special_file_named_by_the_user_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="regular file"):
        discover([str(tmp_path / "pipe")])


# ── several roots ────────────────────────────────────────────────────────────────────────────────────


def test_several_roots_are_told_apart_by_their_names(tmp_path: Path) -> None:
    for root in ("one", "two"):
        dicom(tmp_path / root / "p" / "1.dcm")
    assert names(tmp_path / "two", tmp_path / "one") == ["one/p/1.dcm", "two/p/1.dcm"]


def test_roots_of_one_name_get_content_suffixes_only_where_names_collide(tmp_path: Path) -> None:
    a, b = tmp_path / "a" / "set", tmp_path / "b" / "set"
    for root, content in ((a, b"A"), (b, b"B")):
        dicom(root / "1.dcm", content)
        dicom(root / f"only-{content.decode()}.dcm")
    there = names(a, b)
    assert there == names(b, a)
    assert there[-2:] == ["set/only-A.dcm", "set/only-B.dcm"]
    assert all(len(name) == len("set/1~0123456789ab.dcm") for name in there[:2])
    assert stem(there[0]) != stem(there[1])


def test_equal_files_in_roots_of_one_name_keep_a_row_each(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        dicom(tmp_path / folder / "set" / "1.dcm")
    there = names(*(tmp_path / folder / "set" for folder in "abc"))
    assert len(set(there)) == 3
    assert sorted(name.rpartition("-")[2] for name in there)[:2] == ["2.dcm", "3.dcm"]


def test_root_inside_a_root_is_part_of_it(tmp_path: Path) -> None:
    dicom(tmp_path / "in" / "p" / "1.dcm")
    assert names(tmp_path / "in", tmp_path / "in" / "p") == names(tmp_path / "in") == ["p/1.dcm"]


def test_moved_tree_keeps_its_names(tmp_path: Path) -> None:
    rsna(tmp_path / "here" / "set")
    before = names(tmp_path / "here" / "set")
    (tmp_path / "there" / "deep").mkdir(parents=True)
    (tmp_path / "here" / "set").rename(tmp_path / "there" / "deep" / "other")
    assert names(tmp_path / "there" / "deep" / "other") == before


# ── hostile names ────────────────────────────────────────────────────────────────────────────────────


def test_undecodable_bytes_and_control_characters_are_printed_stably(tmp_path: Path) -> None:
    for raw in (b"caf\xe9.dcm", b"new\nline.dcm", b"back\\slash.dcm", b"two::colons.dcm"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + raw)).write_bytes(DICOM)
    found = discover([str(tmp_path)])
    assert [s.source for s in found.sources] == [
        "back%5Cslash.dcm",
        "caf%E9.dcm",
        "new%0Aline.dcm",
        "two%3A%3Acolons.dcm",
    ]
    assert all(Path(s.path).read_bytes() == DICOM for s in found.sources)


def test_zip_members_with_hostile_names_stay_inside_and_can_be_opened(tmp_path: Path) -> None:
    hostile = ["../../etc/passwd.dcm", "/abs/1.dcm", "C:\\dir\\2.dcm", "x" * 300 + ".dcm", "ok/3.dcm"]
    path = archive(tmp_path / "a.zip", **dict.fromkeys(hostile, DICOM))
    found = discover([str(path)])
    by_member = {s.member: s.source for s in found.sources}
    assert by_member["../../etc/passwd.dcm"] == "a.zip::%2E%2E/%2E%2E/etc/passwd.dcm"
    assert by_member["/abs/1.dcm"] == "a.zip::abs/1.dcm"
    assert by_member["C:\\dir\\2.dcm"] == "a.zip::C%3A/dir/2.dcm"
    assert len(by_member["x" * 300 + ".dcm"].partition("::")[2]) == 200
    with zipfile.ZipFile(path) as file:
        assert all(file.read(s.member or "") == DICOM for s in found.sources)


@settings(max_examples=150, deadline=None)
@given(raw=st.text(alphabet=st.characters(codec=None), max_size=400))
def test_safe_names_are_printable_relative_and_bounded(raw: str) -> None:
    name = safe_name(raw)
    assert name
    assert name.isprintable()
    assert not set(name) & set("/\\:")
    assert name not in (".", "..")
    assert len(name.encode()) <= 200
    assert not safe_path(raw, backslash_separates=True).startswith("/")


_TRICKY = st.text(alphabet="%25AEFh:/\\.\0a\u202e\udcff\udc80é", max_size=6) | st.text(max_size=300)


@settings(max_examples=300, deadline=None)
@given(_TRICKY, _TRICKY)
def test_different_names_stay_different(one: str, other: str) -> None:
    same = unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
    assert (safe_name(one) == safe_name(other)) == same


def test_names_that_look_like_escapes_or_cuts_of_others_stay_different() -> None:
    long = "x" * 300
    names = ["a:b", "a%3Ab", "a%253Ab", "a%25253Ab", "..", "%2E%2E", "", "%00", long, safe_name(long)]
    assert len({safe_name(name) for name in names}) == len(names)
    assert safe_name("John%20Doe 50%.dcm") == "John%20Doe 50%.dcm"


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="ab.", max_size=6), st.sampled_from(["", ".dcm", ".DICOM"]))
def test_content_suffix_goes_before_the_extension(base: str, extension: str) -> None:
    name = f"x{base}{extension}"
    suffixed = with_suffix(name, "abc")
    assert suffixed.replace("~abc", "") == name
    assert is_dicom_name(suffixed) == is_dicom_name(name)
    assert stem(suffixed) == stem(name) + "~abc"


# ── archives ─────────────────────────────────────────────────────────────────────────────────────────


def test_zip_is_walked_like_a_folder(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", **{"p/1": DICOM, "p/2.dcm": b"x", "readme.txt": b"x"})
    found = discover([str(path)])
    assert [(s.source, s.member, s.explicit) for s in found.sources] == [
        ("a.zip::p/1", "p/1", False),
        ("a.zip::p/2.dcm", "p/2.dcm", True),
    ]
    assert found.ignored == 1


def test_one_member_can_be_named(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", **{"p/1": b"x", "p/2": DICOM})
    (source,) = discover([f"{path}::p/1"]).sources
    assert (source.source, source.member, source.explicit) == ("a.zip::p/1", "p/1", True)
    assert names(f"{path}::p/1", path) == ["a.zip::p/1", "a.zip::p/2"]


def test_damaged_archive_is_a_source_of_its_own(tmp_path: Path) -> None:
    path = text(tmp_path / "a.zip", "no archive")
    (source,) = discover([str(path)]).sources
    assert (source.source, source.member, source.explicit) == ("a.zip", None, True)


def test_archive_inside_a_folder_is_not_opened_but_noted(tmp_path: Path) -> None:
    archive(tmp_path / "a.zip", **{"1.dcm": DICOM})
    dicom(tmp_path / "1.dcm")
    found = discover([str(tmp_path)])
    assert [s.source for s in found.sources] == ["1.dcm"]
    assert (found.ignored, len(found.notes)) == (1, 1)
    assert names(tmp_path, tmp_path / "a.zip") == ["1.dcm", "a.zip::1.dcm"]


# ── lists ────────────────────────────────────────────────────────────────────────────────────────────


def test_list_gives_sources_identity_and_labels(tmp_path: Path) -> None:
    dicom(tmp_path / "data" / "a.dcm")
    other = dicom(tmp_path / "other" / "b")
    listing = text(
        tmp_path / "data" / "list.csv",
        "file_path,patient_id,laterality,cancer",
        "a.dcm,007,left,1",
        f"{other},008,R,",
    )
    found = discover([str(listing)])
    first, second = found.sources
    assert (first.source, second.source) == ("data/a.dcm", "other/b")
    assert (first.identity.patient_id, first.identity.laterality) == ("007", "L")
    assert first.identity.image_id is None
    assert [(label.name, label.value) for label in first.labels + second.labels] == [
        ("cancer", 1),
        ("cancer", None),
    ]
    assert all(s.explicit for s in found.sources)


def test_listed_file_that_is_missing_stays_a_source(tmp_path: Path) -> None:
    dicom(tmp_path / "a.dcm")
    listing = text(tmp_path / "list.csv", "path", "a.dcm", "gone.dcm")
    assert names(listing) == ["a.dcm", "gone.dcm"]


def test_list_of_which_nothing_exists_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none of the 1 files"):
        discover([str(text(tmp_path / "list.csv", "path", "gone.dcm"))])


def test_table_without_paths_as_input_points_to_labels(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--labels"):
        discover([str(text(tmp_path / "train.csv", "image_id,cancer", "1,0"))])


def test_list_that_contradicts_itself_is_a_usage_error(tmp_path: Path) -> None:
    dicom(tmp_path / "a.dcm")
    listing = text(tmp_path / "list.csv", "path,cancer", "a.dcm,1", "./a.dcm,0")
    with pytest.raises(UsageError, match=r"rows 2 and 3 .* differ in cancer"):
        discover([str(listing)])


def test_order_of_lists_does_not_matter(tmp_path: Path) -> None:
    lists = []
    for name in ("one", "two"):
        dicom(tmp_path / name / "1.dcm")
        lists.append(text(tmp_path / name / "list.csv", "path,y", f"1.dcm,{len(lists)}"))
    forward, backward = discover([str(p) for p in lists]), discover([str(p) for p in reversed(lists)])
    assert forward.sources == backward.sources
    assert [source.labels[0].value for source in forward.sources] == [0, 1]


def test_list_can_name_archive_members(tmp_path: Path) -> None:
    archive(tmp_path / "a.zip", **{"p/1": DICOM})
    listing = text(tmp_path / "list.csv", "path", "a.zip::p/1")
    (source,) = discover([str(listing)]).sources
    assert (source.source, source.member) == ("a.zip::p/1", "p/1")


# ── remote ───────────────────────────────────────────────────────────────────────────────────────────


def test_remote_folder_glob_file_and_list(memory: fsspec.AbstractFileSystem) -> None:
    for name in ("set/p/1.dcm", "set/p/2", "set/readme.txt"):
        memory.pipe(f"/{name}", b"x" if name.endswith("txt") else DICOM)
    memory.pipe("/set/list.csv", b"path,cancer\np/1.dcm,1\n")
    found = discover(["memory://set"])
    assert [(s.source, s.path) for s in found.sources] == [
        ("p/1.dcm", "memory:///set/p/1.dcm"),
        ("p/2", "memory:///set/p/2"),
    ]
    assert found.ignored == 2
    assert names("memory://set/**/*.dcm") == ["p/1.dcm"]
    assert names("memory://set/p/2") == ["2"]
    (listed,) = discover(["memory://set/list.csv"]).sources
    assert (listed.source, listed.labels[0].value) == ("p/1.dcm", 1)


def test_remote_layout_finds_its_table(memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe("/set/train_images/10006/462822612.dcm", DICOM)
    memory.pipe("/set/train.csv", "\n".join((RSNA_COLUMNS, *RSNA_ROWS)).encode())
    (source,) = discover(["memory://set/train_images"]).sources
    assert (source.source, source.identity.view) == ("10006/462822612.dcm", "CC")
    assert "cancer" in {label.name for label in source.labels}


def test_remote_archive(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    memory.pipe("/set/a.zip", archive(tmp_path / "a.zip", **{"1.dcm": DICOM}).read_bytes())
    (source,) = discover(["memory://set/a.zip"]).sources
    assert (source.source, source.member) == ("a.zip::1.dcm", "1.dcm")


def test_unknown_protocol_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="cannot be opened"):
        discover(["nosuchprotocol://x/y"])


def test_file_url_is_the_local_path(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a b" / "1.dcm")
    assert names(path.as_uri(), path) == ["1.dcm"]


# ── order ────────────────────────────────────────────────────────────────────────────────────────────

_PARTS = st.sampled_from(["a", "b", "é", "10006", "x y"])
_FILES = st.lists(
    st.tuples(_PARTS, _PARTS, st.sampled_from(["1.dcm", "2", "t.txt"])), min_size=1, max_size=8, unique=True
)


@settings(max_examples=25, deadline=None)
@given(files=_FILES, seed=st.integers(0, 2**16))
def test_neither_argument_order_nor_directory_order_matters(
    files: list[tuple[str, str, str]], seed: int
) -> None:
    shuffle = random.Random(seed).shuffle
    scandir = os.scandir

    def disordered(path: str) -> AbstractContextManager[list[os.DirEntry[str]]]:
        with scandir(path) as entries:
            listed = list(entries)
        shuffle(listed)
        return nullcontext(listed)

    with tempfile.TemporaryDirectory() as top, pytest.MonkeyPatch.context() as patch:
        paths = [Path(top, *parts) for parts in files]
        for number, path in enumerate(paths):
            if path.suffix == ".txt":
                text(path, "x")
            else:
                dicom(path, bytes([number]))
        dicom(Path(top, "b", "same", "1.dcm"))
        dicom(Path(top, "é", "same", "1.dcm"), b"other")
        inputs = [str(p) for p in paths]
        inputs += [f"{top}/b/same", f"{top}/é/same", f"{top}/*/a", *sorted({str(p.parent) for p in paths})]
        inputs = [i for i in inputs if "*" not in i or list(Path(top).glob("*/a"))]
        first = discover(inputs)
        shuffle(inputs)
        patch.setattr("preprocess._walk.os", SimpleNamespace(**vars(os) | {"scandir": disordered}))
        again = discover(inputs + inputs[:2])
    assert again.sources == first.sources
    assert again.ignored == first.ignored
    listed = [source.source for source in first.sources]
    assert listed == sorted(set(listed), key=str.encode)
    assert not any(name.startswith("/") for name in listed)


@needs_data
def test_every_real_dicom_is_found_and_nothing_else() -> None:
    found = discover([str(DATA)])
    with open(DATA / "manifest.csv", encoding="utf-8", newline="") as file:
        rows = [row["name"] for row in csv.DictReader(file)]
    assert {s.source for s in found.sources} >= {name for name in rows if name.endswith(".dcm")}
    assert {Path(s.source).suffix for s in found.sources} <= {".dcm", ""}


# ── OUT inside an input ──────────────────────────────────────────────────────────────────────────────


def test_inside_says_which_input_would_be_lost_in_the_output(tmp_path: Path) -> None:
    (tmp_path / "out" / "images").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    out = str(tmp_path / "out")
    for name in ("images", "images/one.dcm", "images/*.dcm", "set.zip::a/1.dcm", "", "../link/images"):
        assert inside([str(tmp_path / "in"), f"{out}/{name}"], out) == f"{out}/{name}"
    assert inside([f"file://{out}/images"], out) == f"file://{out}/images"
    assert inside([f"{out}/images"], str(tmp_path / "link")) == f"{out}/images"
    assert inside([f"{out}2/images", str(tmp_path), f"{tmp_path}/*/x.dcm"], out) is None
    assert inside(["memory://set/in"], "memory://set") == "memory://set/in"
    assert inside(["memory://set2/in"], "memory://set") is None


def test_a_list_may_not_name_files_in_the_output(tmp_path: Path) -> None:
    (tmp_path / "out" / "images").mkdir(parents=True)
    sources = [
        SourceFile(name, f"{tmp_path}/{name}") for name in ("in/a.dcm", "out2/a.dcm", "out/images/a.dcm")
    ]
    assert source_inside(sources, str(tmp_path / "out")) == "out/images/a.dcm"
    assert source_inside(sources[:2], str(tmp_path / "out")) is None
    assert source_inside([SourceFile("a", "s3://out/a.dcm")], "s3://out") is None


def test_contains_says_whether_a_walk_would_meet_the_output(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    file = dicom(tmp_path / "in" / "1.dcm")
    folder = str(tmp_path / "in")
    assert contains([folder], f"{folder}/out")
    assert contains([folder], folder)
    assert contains([folder], str(tmp_path / "link" / "out"))
    assert contains([f"{tmp_path}/**/*.dcm"], f"{folder}/out")
    assert contains([f"{tmp_path}/i*"], f"{folder}/out")
    assert contains(["memory://set"], "memory://set/out")
    assert not contains([folder], f"{folder}-out")
    assert not contains([str(file), f"{folder}/*.dcm"], f"{folder}/out")
    assert not contains(["memory://set"], "memory://settings")
