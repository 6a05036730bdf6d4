"""Names that are safe to print, to store and to join on, made of whatever a file system or archive holds.

In:  raw paths (undecodable bytes as surrogates, `..`, drive letters, control characters, 300 characters).
Out: relative, `/`-separated, printable names that depend on the raw name only.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

MEMBER_SEPARATOR = "::"
"""Stands between an archive's name and its member's; never inside either (`:` is escaped)."""

MAX_COMPONENT_BYTES = 200
"""Longer components are cut and get a hash of the whole, so that names fit any file system."""

_PLAIN = r"[A-Za-z0-9_=+,@()\[\]{}#&~^!' -][A-Za-z0-9_=+,@()\[\]{}#&~^!' .-]{0,99}"
_CLEAN = re.compile(_PLAIN)
_CLEAN_PATH = re.compile(rf"{_PLAIN}(?:/{_PLAIN})*")
_LIKE_OURS = re.compile(r"%(?=h|25|2E|2F|3A|5C|7F|[018-9A-F][0-9A-F])")
"""What would read as an escape of ours if it stayed; `%20` and `50%` are nobody's."""
_DICOM_NAME = re.compile(r"\.(?:dcm|dicom)\Z", re.IGNORECASE)


def safe_name(raw: str) -> str:
    """One path component as printable text: what is not printable, slashes, `:` and `..` become %XX.

    Undecodable bytes (surrogate escapes) give their own %XX, and so does a `%` that would read as one of
    these; text is NFC-normalised, so that a name is the same on file systems that decompose accents. Never
    empty, never `.` or `..`; different names stay different.
    """
    if _CLEAN.fullmatch(raw):
        return raw
    if raw in ("", ".", ".."):
        return "%2E" * len(raw) or "%h"  # %00 is a NUL
    text = _LIKE_OURS.sub("%25", unicodedata.normalize("NFC", raw))
    return _shortened("".join(c if c.isprintable() and c not in "/\\:" else _escaped(c) for c in text))


def safe_path(raw: str, *, backslash_separates: bool = False) -> str:
    """A `/`-separated path with every component made safe; empty and `.` components are dropped.

    The result is relative: leading separators vanish. `backslash_separates` is for archives that were
    packed on Windows.
    """
    if _CLEAN_PATH.fullmatch(raw):
        return raw
    if backslash_separates:
        raw = raw.replace("\\", "/")
    return "/".join(safe_name(part) for part in raw.split("/") if part not in ("", "."))


def is_dicom_name(name: str) -> bool:
    """True if the name ends in .dcm or .dicom (any case) and is no macOS resource fork (`._…`)."""
    return _DICOM_NAME.search(name) is not None and not name.rpartition("/")[2].startswith("._")


def stem(name: str) -> str:
    """The last component without .dcm or .dicom; other dots stay, for UIDs are full of them."""
    return _DICOM_NAME.sub("", name.rpartition("/")[2])


def with_suffix(name: str, suffix: str) -> str:
    """`name` with `~suffix` before its .dcm or .dicom, or at its end."""
    extension = _DICOM_NAME.search(name)
    cut = extension.start() if extension else len(name)
    return f"{name[:cut]}~{suffix}{name[cut:]}"


def _escaped(character: str) -> str:
    # An undecodable byte is a surrogate from DC80 to DCFF (PEP 383); other lone surrogates have no byte.
    errors = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", errors))


def _shortened(name: str) -> str:
    encoded = name.encode()
    if len(encoded) <= MAX_COMPONENT_BYTES:
        return name
    extension = _DICOM_NAME.search(name)
    tail = "%h" + hashlib.sha256(encoded).hexdigest()[:32] + (extension.group() if extension else "")
    return encoded[: MAX_COMPONENT_BYTES - len(tail)].decode(errors="ignore") + tail
