"""Which of several inputs with one SOP Instance UID stays.

In:  scanned files, and probes (file hash, decoded pixels) of those that share a UID.
Out: the files that stay, and for each other one why it goes. Never depends on who finishes first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from preprocess.errors import Stage
from preprocess.packed import recurring
from preprocess.records import Reject, ScannedFile
from preprocess.tasks import Probe


@dataclass(frozen=True, slots=True)
class Duplicate:
    """An input whose pixels are those of `original`, which stays."""

    scanned: ScannedFile
    original: ScannedFile
    file_sha256: str


def shared_uids(scanned: Sequence[ScannedFile]) -> tuple[tuple[ScannedFile, ...], ...]:
    """Groups of at least two files with one SOP Instance UID; an absent UID is never a key."""
    groups: defaultdict[str, list[ScannedFile]] = defaultdict(list)
    for place in recurring(file.sop_instance_uid or at for at, file in enumerate(scanned)):
        file = scanned[place]
        if file.sop_instance_uid:
            groups[file.sop_instance_uid].append(file)
    return tuple(tuple(group) for _, group in sorted(groups.items()) if len(group) > 1)


def judge(group: Sequence[ScannedFile], probes: dict[str, Probe]) -> tuple[list[Duplicate], list[Reject]]:
    """Of one group, the duplicates and the rejects; the first decodable by (file hash, source) stays."""
    in_order = sorted(group, key=lambda file: (probes[file.source.source].file_sha256, _key(file)))
    duplicates: list[Duplicate] = []
    rejects: list[Reject] = []
    original: ScannedFile | None = None
    for file in in_order:
        probe = probes[file.source.source]
        if probe.reject is not None:
            rejects.append(probe.reject)
        elif original is None:
            original = file
        elif probe.pixels == probes[original.source.source].pixels:
            duplicates.append(Duplicate(file, original, probe.file_sha256))
        else:
            message = "same SOP Instance UID as an earlier input, other pixels"
            rejects.append(
                Reject(
                    file.source,
                    Stage.PLAN,
                    "conflicting_duplicate",
                    message,
                    file_bytes=file.file_bytes,
                    file_sha256=probe.file_sha256,
                )
            )
    return duplicates, rejects


def _key(file: ScannedFile) -> bytes:
    return file.source.source.encode("utf-8", "surrogateescape")
