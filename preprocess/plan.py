"""The shard plan: which input goes into which fold and shard, in which order.

In:  ScannedFile of every readable image, the result config, the label columns.
Out: ShardPlan values, the same whatever the order of the inputs. A shard is the unit of work, retry, resume
     and distribution. Patients are never split across folds or shards.

Inside a shard images are in the order of (patient_id, image_id, source), each by its UTF-8 bytes.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from preprocess.config import ResultConfig
from preprocess.errors import REJECT_CODES, UsageError
from preprocess.folds import PatientFacts, assign_folds
from preprocess.packed import Packed, only_sources, pack_scanned, recurring
from preprocess.records import Label, LabelColumn, Reject, ScannedFile, SourceFile
from preprocess.schema import COLUMN_NAMES

_BINARY = (0, 1)
_RESERVED = frozenset(COLUMN_NAMES) | {"image", "format"}


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One shard to make: its place and its inputs, in their order."""

    name: str
    """`fold=K/part-NNNNN`: path relative to OUT, without extension."""
    fold: int
    sources: Sequence[SourceFile] = field(repr=False)
    file_bytes: Sequence[int] = field(repr=False)
    label_columns: tuple[LabelColumn, ...] = field(default=(), repr=False)
    modified_ns: Sequence[int] = field(default=(), repr=False)
    """When each input was last written, 0 where nobody knows; empty if nobody knows of any."""

    def unpacked(self) -> ShardPlan:
        """The same plan with its sources as values, to be handed to a worker."""
        return replace(self, sources=tuple(self.sources))

    def key(self, config: ResultConfig) -> str:
        """Hex sha256 over place, config, label schema and what is known of each input: the resume key."""
        parts: list[object] = [self.name, config.sha256()]
        parts.append([[column.name, column.kind, column.level.value] for column in self.label_columns])
        for source, size in zip(self.sources, self.file_bytes, strict=True):
            who = source.identity
            identity = [who.patient_id, who.image_id, who.laterality, who.view]
            identity += [who.site_id, who.machine_id, who.split]
            labels = [[label.name, label.value] for label in source.labels]
            parts.append([source.source, source.member, size, identity, labels])
        return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()

    def stamp(self) -> str:
        """Tells whether inputs were written to since: a hash of their times, empty if none is known."""
        if not any(self.modified_ns):
            return ""
        return hashlib.sha256(array("q", self.modified_ns).tobytes()).hexdigest()[:16]


def utf8_key(text: str) -> bytes:
    """Sort key: UTF-8 bytes. File names that are not valid UTF-8 sort by their surrogates."""
    return text.encode("utf-8", "surrogatepass")


def positive_label(label_columns: Sequence[LabelColumn], values: Iterable[Sequence[Label]]) -> str | None:
    """Name of the label that folds are stratified by; None if there is none.

    `cancer` if all its values are 0, 1 or absent, else the first column of which that is true.
    """
    binary: dict[str, bool] = {}
    for labels in values:
        for label in labels:
            if label.value is not None:
                binary[label.name] = binary.get(label.name, True) and label.value in _BINARY
    names = [column.name for column in label_columns]
    preferred = [name for name in names if name == "cancer"] + names
    return next((name for name in preferred if binary.get(name)), None)


def is_positive(labels: Sequence[Label], name: str | None) -> bool | None:
    """Value of the stratifying label of one image; None where unknown."""
    value = next((label.value for label in labels if label.name == name), None)
    return None if value is None else value == 1


def split_ambiguous(scanned: Iterable[ScannedFile]) -> tuple[Packed[ScannedFile], tuple[Reject, ...]]:
    """Of different inputs with one (patient_id, image_id) keep the first in source order; reject the others.

    Inputs that share a SOP Instance UID with the one kept stay: they are duplicates, or conflicting ones,
    which is for the duplicate rule to say. Both results are in source order.
    """
    files = _in_source_order(pack_scanned(scanned))
    first: dict[tuple[str | None, str | None], ScannedFile] = {}
    rejects: dict[int, Reject] = {}
    for place in recurring((file.identity.patient_id, file.identity.image_id) for file in files):
        candidate = files[place]
        winner = first.setdefault((candidate.identity.patient_id, candidate.identity.image_id), candidate)
        uid = candidate.sop_instance_uid
        if winner is not candidate and (uid is None or uid != winner.sop_instance_uid):
            rejects[place] = _ambiguous(candidate)
    kept = files.take(place for place in range(len(files)) if place not in rejects) if rejects else files
    return kept, tuple(rejects.values())


def _in_source_order(files: Packed[ScannedFile]) -> Packed[ScannedFile]:
    """Code points sort as UTF-8 bytes do."""
    if all(one <= other for one, other in pairwise(file.source.source for file in files)):
        return files
    names = [file.source.source for file in files]
    return files.take(sorted(range(len(files)), key=names.__getitem__))


def _ambiguous(scanned: ScannedFile) -> Reject:
    code = "ambiguous_identity"
    return Reject(
        source=scanned.source,
        stage=REJECT_CODES[code].stage,
        code=code,
        message="an earlier input has the same patient_id and image_id",
        file_bytes=scanned.file_bytes,
    )


def plan_shards(
    scanned: Iterable[ScannedFile], config: ResultConfig, label_columns: Sequence[LabelColumn] = ()
) -> tuple[ShardPlan, ...]:
    """Plan folds and shards: at most `config.shard_images` per shard unless one patient has more.

    Raises:
        UsageError: a label has the name of a fixed column.
    """
    names = {column.name for column in label_columns}
    taken = sorted(name for name in names if name in _RESERVED or name.startswith("image/"))
    if taken:
        raise UsageError(f"labels may not be called {', '.join(taken)}: these are names of fixed columns")
    files = pack_scanned(scanned)
    label = positive_label(label_columns, (file.source.labels for file in files))
    patients = _Patients(files)
    facts = [_facts(patient, files.take(patients.rows(patient)), label) for patient in patients.numbers]
    folds = assign_folds(facts, config.folds, config.seed)
    in_order = sorted(patients.numbers, key=utf8_key)
    plans: list[ShardPlan] = []
    for fold in range(config.folds):
        rows = (patients.rows(patient) for patient in in_order if folds[patient] == fold)
        members = (_in_image_order(files.take(some), some) for some in rows)
        for number, shard in enumerate(_pack(members, config.shard_images)):
            name = f"fold={fold}/part-{number:05d}"
            plans.append(_plan(name, fold, files.take(shard), tuple(label_columns)))
    return tuple(plans)


class _Patients:
    """Where each patient's files are, in the order of the files."""

    def __init__(self, files: Iterable[ScannedFile]) -> None:
        self.numbers: dict[str, int] = {}
        codes = array("q")
        for file in files:
            codes.append(self.numbers.setdefault(file.identity.patient_id or "", len(self.numbers)))
        self._order = np.argsort(codes, kind="stable")
        self._starts = np.cumsum([0, *np.bincount(codes, minlength=len(self.numbers))])

    def rows(self, patient: str) -> npt.NDArray[np.int64]:
        """Places of one patient's files."""
        number = self.numbers[patient]
        return self._order[self._starts[number] : self._starts[number + 1]]


def _facts(patient_id: str, files: Sequence[ScannedFile], label: str | None) -> PatientFacts:
    values = [v for v in (is_positive(f.source.labels, label) for f in files) if v is not None]
    sites = [f.identity.site_id for f in files if f.identity.site_id is not None]
    return PatientFacts(
        patient_id=patient_id,
        positive=any(values) if values else None,
        site=min(sites, key=utf8_key) if sites else None,
        images=len(files),
        positive_images=sum(values),
    )


def _in_image_order(patient: Packed[ScannedFile], rows: Iterable[int]) -> list[int]:
    """Rows of one patient's files, sorted by image_id and source."""
    named = zip(((file.identity.image_id or "", file.source.source) for file in patient), rows, strict=True)
    return [row for _, row in sorted(named)]


def _pack(patients: Iterable[list[int]], limit: int) -> Iterator[list[int]]:
    """Fill shards patient by patient, whole patients only."""
    shard: list[int] = []
    for rows in patients:
        if shard and len(shard) + len(rows) > limit:
            yield shard
            shard = []
        shard.extend(rows)
    if shard:
        yield shard


def _plan(name: str, fold: int, files: Packed[ScannedFile], labels: tuple[LabelColumn, ...]) -> ShardPlan:
    return ShardPlan(
        name=name,
        fold=fold,
        sources=only_sources(files),
        file_bytes=array("Q", (file.file_bytes for file in files)),
        label_columns=labels,
        modified_ns=array("q", (file.modified_ns for file in files)),
    )
