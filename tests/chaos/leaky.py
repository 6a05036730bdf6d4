"""A breast detector whose faults quote the header: what a fault of this program could do."""

from __future__ import annotations

import numpy as np

from preprocess.records import ImageHeader


def detect(values: np.ndarray, image: ImageHeader) -> tuple[int, int, int, int] | None:
    if image.presentation_intent_type == "FOR PROCESSING":
        raise ValueError("could not read QXKZV9999^JANE of 19431107", values, image)
    return None
