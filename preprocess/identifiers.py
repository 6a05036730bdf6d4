"""Pseudonyms: ids, UIDs and sources as they may appear in OUT.

In:  rows with the original names.
Out: the same rows, or with `--identifiers hash` rows in which every patient_id, image_id, UID and source is
     a keyed hash (HMAC-SHA256, 128 bits). The key file is made on first use, beside OUT and never in it: who
     has it can hash a known id again and so map back; who has not cannot.

Labels, laterality, view, site and machine stay: they are what models are trained and checked on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from preprocess.config import Identifiers
from preprocess.errors import RunAborted, UsageError
from preprocess.schema import InstanceRow

_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Replaces identifiers, or keeps them if it has no key."""

    key: bytes | None = field(default=None, repr=False)

    @classmethod
    def open(cls, identifiers: Identifiers, key_file: Path) -> Pseudonyms:
        """Pseudonyms as the config asks; with HASH the key is read, or made with mode 0600.

        Raises:
            UsageError: the key file is not one.
            RunAborted: it cannot be read or written.
        """
        if identifiers is Identifiers.KEEP:
            return cls()
        try:
            text = _read_or_make(key_file)
        except OSError as error:
            raise RunAborted(f"key file {key_file.name}: {os.strerror(error.errno or 0)}") from None
        try:
            key = bytes.fromhex(text)
        except ValueError:
            key = b""
        if len(key) != _KEY_BYTES:
            raise UsageError(f"{key_file.name} is not a key file of this program (64 hexadecimal digits)")
        return cls(key)

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


def _read_or_make(key_file: Path) -> str:
    """The key file's text; of two who make it at once the second reads the first's."""
    try:
        descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return key_file.read_text(encoding="ascii", errors="replace").strip()
    text = secrets.token_hex(_KEY_BYTES)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    return text
