"""The shard plan: which input goes into which fold and shard, in which order.

In:  ScannedFile of every readable image, the result config, the label columns.
Out: ShardPlan values, the same whatever the order of the inputs. A shard is the unit of work, retry, resume
     and distribution. Patients are never split across folds or shards.

Inside a shard images are in the order of (patient_id, image_id, source), each by its UTF-8 bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from preprocess.config import ResultConfig
from preprocess.errors import REJECT_CODES, UsageError
from preprocess.folds import PatientFacts, assign_folds
from preprocess.records import Label, LabelColumn, LabelValue, Reject, ScannedFile, SourceFile
from preprocess.schema import COLUMN_NAMES

_BINARY = (0, 1)
_RESERVED = frozenset(COLUMN_NAMES) | {"image", "format"}


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One shard to make: its place and its inputs, in their order."""

    name: str
    """`fold=K/part-NNNNN`: path relative to OUT, without extension."""
    fold: int
    sources: tuple[SourceFile, ...] = field(repr=False)
    file_bytes: tuple[int, ...] = field(repr=False)
    label_columns: tuple[LabelColumn, ...] = field(default=(), repr=False)

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


def utf8_key(text: str) -> bytes:
    """Sort key: UTF-8 bytes. File names that are not valid UTF-8 sort by their surrogates."""
    return text.encode("utf-8", "surrogatepass")


def positive_label(label_columns: Sequence[LabelColumn], values: Iterable[Sequence[Label]]) -> str | None:
    """Name of the label that folds are stratified by; None if there is none.

    `cancer` if all its values are 0, 1 or absent, else the first column of which that is true.
    """
    seen: dict[str, set[LabelValue]] = defaultdict(set)
    for labels in values:
        for label in labels:
            if label.value is not None:
                seen[label.name].add(label.value)
    names = [column.name for column in label_columns]
    preferred = [name for name in names if name == "cancer"] + names
    return next((name for name in preferred if seen[name] and all(v in _BINARY for v in seen[name])), None)


def is_positive(labels: Sequence[Label], name: str | None) -> bool | None:
    """Value of the stratifying label of one image; None where unknown."""
    value = next((label.value for label in labels if label.name == name), None)
    return None if value is None else value == 1


def split_ambiguous(scanned: Sequence[ScannedFile]) -> tuple[tuple[ScannedFile, ...], tuple[Reject, ...]]:
    """Of different inputs with one (patient_id, image_id) keep the first in source order; reject the others.

    Inputs that share a SOP Instance UID with the one kept stay: they are duplicates, or conflicting ones,
    which is for the duplicate rule to say. Both results are in source order.
    """
    first: dict[tuple[str | None, str | None], ScannedFile] = {}
    kept, rejects = [], []
    for candidate in sorted(scanned, key=lambda s: utf8_key(s.source.source)):
        winner = first.setdefault((candidate.identity.patient_id, candidate.identity.image_id), candidate)
        uid = candidate.sop_instance_uid
        if winner is candidate or (uid is not None and uid == winner.sop_instance_uid):
            kept.append(candidate)
        else:
            rejects.append(_ambiguous(candidate))
    return tuple(kept), tuple(rejects)


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
    scanned: Sequence[ScannedFile], config: ResultConfig, label_columns: Sequence[LabelColumn] = ()
) -> tuple[ShardPlan, ...]:
    """Plan folds and shards: at most `config.shard_images` per shard unless one patient has more.

    Raises:
        UsageError: a label has the name of a fixed column.
    """
    taken = sorted(_RESERVED & {column.name for column in label_columns})
    if taken:
        raise UsageError(f"labels may not be called {', '.join(taken)}: these are names of fixed columns")
    patients: dict[str, list[ScannedFile]] = defaultdict(list)
    for one in scanned:
        patients[one.identity.patient_id or ""].append(one)
    name = positive_label(label_columns, (s.source.labels for s in scanned))
    folds = assign_folds([_facts(pid, patients[pid], name) for pid in patients], config.folds, config.seed)
    plans: list[ShardPlan] = []
    for fold in range(config.folds):
        members = [patients[pid] for pid in sorted(patients, key=utf8_key) if folds[pid] == fold]
        for number, files in enumerate(_pack(members, config.shard_images)):
            plans.append(_plan(f"fold={fold}/part-{number:05d}", fold, files, tuple(label_columns)))
    return tuple(plans)


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


def _pack(patients: Sequence[Sequence[ScannedFile]], limit: int) -> list[list[ScannedFile]]:
    """Fill shards patient by patient, whole patients only."""
    shards: list[list[ScannedFile]] = []
    for files in patients:
        if not shards or len(shards[-1]) + len(files) > limit:
            shards.append([])
        shards[-1].extend(sorted(files, key=_order))
    return shards


def _order(scanned: ScannedFile) -> tuple[bytes, bytes, bytes]:
    who = scanned.identity
    return utf8_key(who.patient_id or ""), utf8_key(who.image_id or ""), utf8_key(scanned.source.source)


def _plan(name: str, fold: int, files: Sequence[ScannedFile], labels: tuple[LabelColumn, ...]) -> ShardPlan:
    return ShardPlan(
        name=name,
        fold=fold,
        sources=tuple(f.source for f in files),
        file_bytes=tuple(f.file_bytes for f in files),
        label_columns=labels,
    )
