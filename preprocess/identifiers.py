"""Pseudonyms: ids, UIDs and sources as they may appear in OUT.

In:  rows with the original names.
Out: the same rows, or with `--identifiers hash` rows in which every patient_id, image_id, UID and source is
     a keyed hash (HMAC-SHA256, 128 bits). The key file is made on first use, beside OUT and never in it: who
     has it can hash a known id again and so map back; who has not cannot.

Labels, laterality, view, site and machine stay: they are what models are trained and checked on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from preprocess.atomic import sync_directory
from preprocess.config import Identifiers
from preprocess.errors import RunAborted, UsageError
from preprocess.places import Place
from preprocess.schema import InstanceRow

_KEY_BYTES = 32
_KEY = re.compile(r"[0-9A-Fa-f]{64}")
_LONGEST_FILE = 1024
_NEEDED = "give the one that this dataset was made with as --key-file, or another --out"


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Replaces identifiers, or keeps them if it has no key."""

    key: bytes | None = field(default=None, repr=False)

    @classmethod
    def open(cls, identifiers: Identifiers, key_file: Path, check: str | None = None) -> Pseudonyms:
        """Pseudonyms as the config asks; with HASH the key is read, or made with mode 0600.

        Args:
            identifiers: Whether there is anything to replace.
            key_file: Where the key lies, or shall lie.
            check: The `check()` of the dataset that these names are for; None if there is none yet. Then, and
                only then, a key may be made.

        Raises:
            UsageError: the key file is not one, or is not the one that the dataset was made with.
            RunAborted: it cannot be read or written.
        """
        if identifiers is Identifiers.KEEP:
            return cls()
        try:
            text = _read(key_file) if check is not None else _read_or_make(key_file)
        except FileNotFoundError:
            why = "cannot be made there: no such folder" if check is None else f"does not exist; {_NEEDED}"
            raise UsageError(f"the key {key_file} {why}") from None
        except OSError as error:
            raise RunAborted(f"key file {key_file}: {os.strerror(error.errno or 0)}") from None
        if not _KEY.fullmatch(text):
            raise UsageError(f"{key_file} is not a key file of this program (64 hexadecimal digits)")
        pseudonyms = cls(bytes.fromhex(text))
        if check not in (None, pseudonyms.check()):
            raise UsageError(f"{key_file} is another dataset's key; {_NEEDED}")
        return pseudonyms

    def check(self) -> str | None:
        """What a dataset keeps of the key, to know it again: 64 bits of a keyed hash of nothing."""
        if self.key is None:
            return None
        return hmac.digest(self.key, b"bcd-prep key check", hashlib.sha256)[:8].hex()

    def name(self, kind: str, value: str | None) -> str | None:
        """A value's pseudonym: 32 hex digits; UIDs become `2.25.` and a number (PS3.5 B.2)."""
        if self.key is None or value is None:
            return value
        message = kind.encode() + b"\0" + value.encode("utf-8", "surrogatepass")
        digest = hmac.digest(self.key, message, hashlib.sha256)[:16]
        return f"2.25.{int.from_bytes(digest)}" if kind == "uid" else digest.hex()

    def source(self, source: str) -> str:
        """The pseudonym of a source."""
        return self.name("source", source) or source

    def row(self, row: InstanceRow) -> InstanceRow:
        """The row as it may be written. Takes original names: twice gives other ones."""
        if self.key is None:
            return row
        return dataclasses.replace(
            row,
            source=self.source(row.source),
            duplicate_of=self.name("source", row.duplicate_of),
            patient_id=self.name("patient_id", row.patient_id),
            image_id=self.name("image_id", row.image_id),
            study_instance_uid=self.name("uid", row.study_instance_uid),
            series_instance_uid=self.name("uid", row.series_instance_uid),
            sop_instance_uid=self.name("uid", row.sop_instance_uid),
        )


def refuse_inside(out: Place, key_file: Path) -> None:
    """Refuse a key inside OUT, where it would be handed on with the data. Raises UsageError."""
    if isinstance(out, Path) and os.path.realpath(key_file).startswith(
        f"{os.path.realpath(out).rstrip('/')}/"
    ):
        raise UsageError(f"the key {key_file} lies inside {out}: whoever gets the data would get the key")


def _read_or_make(key_file: Path) -> str:
    """The key file's text; of two who make it at once the second reads the first's."""
    if not os.path.lexists(key_file):
        with contextlib.suppress(FileExistsError):
            _make(key_file)
    return _read(key_file)


def _read(key_file: Path) -> str:
    with open(key_file, "rb") as file:
        return file.read(_LONGEST_FILE).decode("ascii", "replace").strip()


def _make(key_file: Path) -> None:
    """Write a new key; the file is whole or not there. Raises FileExistsError if somebody was faster."""
    partial = key_file.with_name(f".{key_file.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        _put(partial, key_file)
        sync_directory(key_file.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)


def _put(partial: Path, key_file: Path) -> None:
    """Give the file its name; unlike a rename, a link replaces nobody's key."""
    try:
        os.link(partial, key_file)
    except FileExistsError:
        raise
    except OSError:  # no hard links here (exFAT, some network mounts)
        os.rename(partial, key_file)
