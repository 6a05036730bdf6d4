"""Prepared values, rejects and whole small datasets made by hand, without reading any DICOM."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from preprocess.config import ResultConfig
from preprocess.identifiers import Pseudonyms
from preprocess.images import pixels_sha256
from preprocess.manifest import Manifest, finish
from preprocess.plan import ShardPlan, plan_shards
from preprocess.records import (
    BreastBox,
    Geometry,
    Identity,
    Label,
    LabelColumn,
    LabelLevel,
    Mammogram,
    Prepared,
    Reject,
    RoiMethod,
    ScannedFile,
    SourceFile,
    Stage,
    VoiChoice,
    VoiFunction,
    VoiSource,
    Window,
)
from preprocess.shards import ShardResult, ShardWriter
from tests.instances import header, instance

CONFIG = ResultConfig(height=32, width=16, folds=2, shard_images=4)

LABELS = (
    LabelColumn("cancer", "int64", LabelLevel.BREAST),
    LabelColumn("age", "float64", LabelLevel.PATIENT),
    LabelColumn("density", "string", LabelLevel.IMAGE),
)

BAD = "bad.dcm"
"""Files that end so are rejected by `outcome`."""


def scanned(patient: str, image: str, cancer: int | None = None, **changes: str) -> ScannedFile:
    """A readable input `<patient>/<image>.dcm` of site 1; changes: source, site_id, sop_instance_uid."""
    labels = (Label("cancer", cancer), Label("age", 50 + len(patient)), Label("density", "B"))
    who = Identity(
        patient_id=patient, image_id=image, laterality="L", view="CC", site_id=changes.get("site_id", "1")
    )
    name = changes.get("source", f"train_images/{patient}/{image}.dcm")
    source = SourceFile(
        source=name, path=f"/data/{name}", identity=who, labels=labels if cancer is not None else ()
    )
    return ScannedFile(source, who, changes.get("sop_instance_uid"), file_bytes=1000 + len(image))


def prepared(source: SourceFile, config: ResultConfig = CONFIG) -> Prepared:
    """A picture that depends on the source's name only, with four columns of fill at the right."""
    seed = int.from_bytes(hashlib.sha256(source.source.encode("utf-8", "surrogatepass")).digest()[:8])
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 1 << config.bits, (config.height, config.width)).astype(f"u{config.bits // 8}")
    pixels[:, -4:] = 0
    frame = np.zeros((8, 8), np.uint16)
    made = instance(frame.tobytes(), header((8, 8), "little"))
    uid = f"1.2.3.{seed}"
    made = dataclasses.replace(
        made, source=source, identity=source.identity, sop_instance_uid=uid, study_instance_uid="1.2.3"
    )
    box = BreastBox(RoiMethod.BREAST, row=1, column=0, rows=6, columns=5, flipped=True)
    return Prepared(
        mammogram=Mammogram(made, frame, level=0, decoder="test"),
        geometry=Geometry(box, config.height, config.width, 0, 0, config.height, config.width - 4),
        voi=VoiChoice(VoiSource.WINDOW, VoiFunction.SIGMOID, Window(Fraction(4097, 2), Fraction("3333.3"))),
        pixels=pixels,
        bits=config.bits,
        decoded_sha256=hashlib.sha256(frame.tobytes()).hexdigest(),
        pixels_sha256=pixels_sha256(pixels),
    )


def reject(source: SourceFile) -> Reject:
    """A blank image."""
    return Reject(source, Stage.ROI, "blank_image", "all pixels are 0", file_bytes=7)


def inputs(patients: int = 6, images: int = 2) -> tuple[ScannedFile, ...]:
    """`patients` patients with `images` images each; every third is positive; one image is bad."""
    files = [
        scanned(f"p{p:02d}", f"{p}{i}" + ("bad" if (p, i) == (1, 0) else ""), cancer=int(p % 3 == 0))
        for p in range(patients)
        for i in range(images)
    ]
    return tuple(files)


def write_shard(
    out: Path, plan: ShardPlan, config: ResultConfig = CONFIG, pseudonyms: Pseudonyms | None = None
) -> ShardResult:
    """Write one shard; inputs whose name ends in bad.dcm are rejected."""
    with ShardWriter(out, plan, config, plan.label_columns, pseudonyms) as writer:
        for source in plan.sources:
            if source.source.endswith(BAD):
                writer.reject(reject(source))
            else:
                writer.add(prepared(source, config))
        return writer.commit()


def write_dataset(
    out: Path,
    config: ResultConfig = CONFIG,
    files: Sequence[ScannedFile] | None = None,
    pseudonyms: Pseudonyms | None = None,
) -> Manifest:
    """A whole small dataset."""
    plans = plan_shards(inputs() if files is None else files, config, LABELS)
    results = [write_shard(out, plan, config, pseudonyms) for plan in plans]
    return finish(out, results, [], config=config, label_columns=LABELS, ignored=3)
