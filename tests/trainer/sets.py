"""Small datasets for the trainer's tests: what tests.factories writes, opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from preprocess.config import Format, ResultConfig
from preprocess.records import Identity, Label, ScannedFile, SourceFile
from tests.factories import write_dataset
from trainer.dataset import Dataset, open_dataset

BOTH = ResultConfig(height=32, width=16, folds=2, shard_images=12, formats=(Format.TFRECORD, Format.PARQUET))
VIEWS = ("CC", "MLO")


def image(
    patient: str, side: str, view: str, cancer: int | None, *, split: str | None = None, density: str = "B"
) -> ScannedFile:
    """One readable input; `cancer` None: unlabelled."""
    name = f"{patient}{side}{view}"
    who = Identity(
        patient_id=patient, image_id=name, laterality=side or None, view=view, site_id="1", split=split
    )
    labels = (Label("cancer", cancer), Label("age", 40.0 + len(patient)), Label("density", density))
    source = SourceFile(
        source=f"{patient}/{name}.dcm",
        path=f"/data/{patient}/{name}.dcm",
        identity=who,
        labels=labels if cancer is not None else (),
    )
    return ScannedFile(source, who, None, file_bytes=1000)


def screening(patients: int = 12, positive: int = 4) -> list[ScannedFile]:
    """Two views of both breasts of each patient; the left breast of the first `positive` ones is ill."""
    return [
        image(f"p{p:02d}", side, view, int(p < positive and side == "L"), density="ABCD"[p % 4])
        for p in range(patients)
        for side in "LR"
        for view in VIEWS
    ]


def make(out: Path, files: Sequence[ScannedFile] | None = None, config: ResultConfig = BOTH) -> Dataset:
    """Write and open."""
    write_dataset(out, config, screening() if files is None else files)
    return open_dataset(out)
