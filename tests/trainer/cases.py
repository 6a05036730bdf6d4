"""Made-up predictions of known quality."""

from __future__ import annotations

import numpy as np

from preprocess.records import Label, Status
from preprocess.schema import InstanceRow
from trainer.predictions import Predictions


def rows(patients: int = 60, seed: int = 0) -> tuple[InstanceRow, ...]:
    """Four images of each patient; one breast in five has cancer; two sites, five machines."""
    rng = np.random.default_rng(seed)
    made = []
    for patient in range(patients):
        age = int(rng.integers(35, 80))
        for side in "LR":
            cancer = int(rng.random() < 0.2)
            for view in ("CC", "MLO"):
                labels = (Label("cancer", cancer), Label("age", age), Label("density", "ABCD"[patient % 4]))
                made.append(
                    InstanceRow(
                        source=f"{patient:03}/{side}{view}.dcm", status=Status.PREPARED, laterality=side,
                        patient_id=f"p{patient}", image_id=f"{patient}{side}{view}", view=view,
                        fold=patient % 5, site_id=str(patient % 2),
                        machine_id=str(patient % 5), labels=labels,
                    )
                )  # fmt: skip
    return tuple(made)


def predicted(of: tuple[InstanceRow, ...], separation: float = 1.5, seed: int = 1) -> Predictions:
    """Logits are normal, `separation` apart."""
    rng = np.random.default_rng(seed)
    labels = np.array([row.labels[0].value for row in of], float)
    logits = rng.normal(size=len(of)) + separation * labels - 2
    return Predictions.of(of, [row.fold for row in of], labels, 1 / (1 + np.exp(-logits)))
