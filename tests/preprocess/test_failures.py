"""Failures are told in words, without what their own text quotes."""

from __future__ import annotations

import io
import json
import ssl
import urllib.error
import zipfile
import zlib
from email.message import Message
from pathlib import Path

import pytest
from click.testing import CliRunner

from preprocess.failures import describe
from trainer.cli import main

SECRET = "DOE^JANE"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, SECRET, SECRET), "No space left on device (ENOSPC)"),
        (FileNotFoundError(SECRET), "there is no such file"),
        (OSError(-2, SECRET), "there is no address for that host"),
        (urllib.error.URLError(ConnectionRefusedError(111, SECRET)), "Connection refused (ECONNREFUSED)"),
        (urllib.error.HTTPError(SECRET, 404, SECRET, Message(), io.BytesIO()), "the server answered 404"),
        (ssl.SSLCertVerificationError(1, SECRET), "the encrypted connection failed"),
        (ModuleNotFoundError(SECRET, name="s3fs"), "needs the package s3fs"),
        (zipfile.BadZipFile(SECRET), "a damaged archive"),
        (json.JSONDecodeError(SECRET, SECRET, 0), "not of the expected form"),
        (zlib.error(SECRET), "damaged compressed data"),
        (NotImplementedError(SECRET), "of a kind that is not supported"),
        (KeyError(SECRET), "a part of it is missing"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_failures_have_words(error: BaseException, words: str) -> None:
    assert describe(error) == words


def test_mistakes_with_files_are_messages(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "broken.yaml").write_text("- Rotate:\n    limit: [1\n")
    said = {
        "nowhere": "neither none, light, heavy nor a YAML file: No such file or directory (ENOENT)",
        "binary.yaml": "nor a YAML file: not UTF-8 text",
        "broken.yaml": "augmentation: not YAML at line 3",
    }
    for name, words in said.items():
        told = CliRunner().invoke(main, ["augment", str(tmp_path / name)])
        assert told.exit_code == 2
        assert words in told.output
