"""DICOM's identifiers in words for people: reports, the dataset card and `inspect`."""

from __future__ import annotations

from datetime import datetime

TRANSFER_SYNTAXES: dict[str, str] = {
    "1.2.840.10008.1.2": "Implicit VR Little Endian",
    "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
    "1.2.840.10008.1.2.1.99": "Deflated Explicit VR",
    "1.2.840.10008.1.2.2": "Explicit VR Big Endian",
    "1.2.840.10008.1.2.4.50": "JPEG baseline",
    "1.2.840.10008.1.2.4.51": "JPEG extended",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless SV1",
    "1.2.840.10008.1.2.4.80": "JPEG-LS lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS near-lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "HTJ2K lossless",
    "1.2.840.10008.1.2.4.202": "HTJ2K lossless RPCL",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
    "1.2.840.10008.1.2.5": "RLE lossless",
}
"""Short names of PS3.6 table A-1."""

VOI_SOURCES: dict[str, str] = {
    "window": "header window",
    "lut": "VOI LUT Sequence",
    "minmax": "minimum to maximum",
    "percentile": "percentiles",
    "full": "full stored range",
}

ROIS: dict[str, str] = {
    "breast": "breast found",
    "whole_frame": "whole frame kept",
    "detector": "own detector",
}

STAGES: dict[str, str] = {
    "discover": "find and read",
    "parse": "parse headers",
    "plan": "plan",
    "decode": "decode",
    "roi": "find the breast",
    "render": "resample and window",
    "encode": "encode",
    "write": "write shards",
}


def transfer_syntax(uid: str) -> str:
    """`JPEG 2000 lossless (.90)` for a UID; the UID itself where it is unknown."""
    name = TRANSFER_SYNTAXES.get(uid)
    if name is None:
        return uid
    short = uid.removeprefix("1.2.840.10008.1.2")
    return f"{name} ({short.removeprefix('.4') if short.startswith('.4.') else short or '.2'})"


def decode_level(level: int) -> str:
    """A wavelet level in words."""
    return "full size" if level == 0 else f"level {level} (1/{2**level})"


def byte_size(amount: float) -> str:
    """Bytes in decimal units, three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(amount) < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


def duration(seconds: float) -> str:
    """Seconds as a person says it."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def moment(text: str) -> str:
    """An ISO 8601 time as `2026-01-31 12:30 UTC`; the text itself if it is not one."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{when:%Y-%m-%d %H:%M} {when.tzname() or ''}".strip()
