"""Reading bytes: files, zip members, URLs, and their limits."""

from __future__ import annotations

import os
import zipfile

import fsspec
import pytest

from preprocess import _read
from preprocess._read import read_prefix
from preprocess.config import ResultConfig
from preprocess.dicom import parse, read_bytes, scan
from preprocess.errors import RejectedInput
from preprocess.records import SourceFile
from tests.preprocess.dicom_maker import image_file

DATA = image_file() + b"\0" * 100_000


def refusal(source: SourceFile, limit: int = 1_000_000) -> str:
    with pytest.raises(RejectedInput) as caught:
        read_bytes(source, limit)
    assert source.path not in caught.value.message
    return caught.value.code


def member(tmp_path, data: bytes = DATA, compression: int = zipfile.ZIP_DEFLATED) -> SourceFile:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x/y.dcm", data)
    return SourceFile("a.zip::x/y.dcm", str(path), member="x/y.dcm")


@pytest.fixture
def everywhere(tmp_path):
    """The same bytes as a file, a zip member, a URL, and a zip member behind a URL."""
    path = tmp_path / "x.dcm"
    path.write_bytes(DATA)
    zipped = member(tmp_path)
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/c/x.dcm", DATA)
    memory.pipe_file("/c/a.zip", (tmp_path / "a.zip").read_bytes())
    _read._cached_archive.cache_clear()
    yield (
        SourceFile("x.dcm", str(path)),
        zipped,
        SourceFile("x.dcm", "memory://c/x.dcm"),
        SourceFile("x.dcm", f"file://{path}"),
        SourceFile("a.zip::x/y.dcm", "memory://c/a.zip", member="x/y.dcm"),
    )
    _read._cached_archive.cache_clear()
    memory.rm("/c", recursive=True)


def test_the_same_bytes_come_from_everywhere(everywhere):
    for source in everywhere:
        assert read_bytes(source, 1_000_000) == DATA
        assert read_prefix(source, 1_000_000, 10) == (DATA[:10], len(DATA))
        assert parse(source, ResultConfig()).file_bytes == len(DATA)
        assert scan(source, ResultConfig()).file_bytes == len(DATA)


def test_the_limit_holds_everywhere(everywhere):
    for source in everywhere:
        assert refusal(source, len(DATA) - 1) == "file_too_large"
        assert read_bytes(source, len(DATA)) == DATA


def test_too_large_a_file_is_not_read(tmp_path):
    path = tmp_path / "sparse.dcm"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    assert refusal(SourceFile("sparse.dcm", str(path))) == "file_too_large"


def test_a_zip_bomb_is_not_inflated(tmp_path):
    assert refusal(member(tmp_path, b"\0" * 5_000_000), 1_000_000) == "file_too_large"


def test_what_cannot_be_opened_is_unreadable(tmp_path):
    assert refusal(SourceFile("no.dcm", str(tmp_path / "no.dcm"))) == "unreadable"
    assert refusal(SourceFile("folder", str(tmp_path))) == "unreadable"
    os.mkfifo(tmp_path / "pipe")
    assert refusal(SourceFile("pipe", str(tmp_path / "pipe"))) == "unreadable"
    assert refusal(SourceFile("x", "nosuchprotocol://x/y.dcm")) == "unreadable"
    assert refusal(SourceFile("x", "memory://nothing/here.dcm")) == "unreadable"


def test_damaged_archives_are_unreadable(tmp_path):
    good = member(tmp_path, compression=zipfile.ZIP_STORED)
    assert refusal(SourceFile("a.zip::z", good.path, member="z")) == "unreadable"
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    raw[400] ^= 0xFF
    (tmp_path / "flipped.zip").write_bytes(raw)
    assert refusal(SourceFile("f", str(tmp_path / "flipped.zip"), member="x/y.dcm")) == "unreadable"
    (tmp_path / "no.zip").write_bytes(b"no archive")
    assert refusal(SourceFile("n", str(tmp_path / "no.zip"), member="x/y.dcm")) == "unreadable"


def test_an_encrypted_member_is_unreadable(tmp_path):
    source = member(tmp_path)
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        raw[raw.index(signature) + flags] |= 1
    (tmp_path / "a.zip").write_bytes(raw)
    assert refusal(source) == "unreadable"


def test_an_archives_directory_is_read_once_and_again_when_it_changes(tmp_path):
    source = member(tmp_path)
    _read._cached_archive.cache_clear()
    for _ in range(5):
        read_bytes(source, 1_000_000)
    assert _read._cached_archive.cache_info().misses == 1
    other = member(tmp_path, b"other")
    assert read_bytes(other, 1_000_000) == b"other"
    _read._cached_archive.cache_clear()
