"""Crop, orient, resample, look up, on a GPU, a batch at a time: what render.py does, with the same bytes.

In:  Mammograms whose pixels lie on the device, their Findings; one result config.
Out: Prepared values on the host. The host waits once a batch, in `Rendering.arrived`, which another thread
     may call while the next batch is queued; and hashes image by image, on as many threads as there are.

`plan` is the host's share for one image and the place where one may be rejected. It waits for the device only
where a window by range needs the image's histogram, or bright padding is to be replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy.typing as npt

from preprocess import background
from preprocess.config import ResultConfig
from preprocess.decode import decoded_sha256
from preprocess.geometry import fit, pixel_aspect
from preprocess.kernels import seam as kernels
from preprocess.kernels.launches import Fetched
from preprocess.kernels.pictures import Drawing, Kept
from preprocess.records import Geometry, Mammogram, Prepared, VoiChoice
from preprocess.render import axes, window, without_bright_padding
from preprocess.roi import Findings


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be drawn of one image, and what will be said of it."""

    mammogram: Mammogram
    geometry: Geometry
    voi: VoiChoice
    drawing: Drawing = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rendering:
    """A batch that the device is at work on."""

    plans: tuple[Plan, ...]
    bits: int
    fetched: Fetched = field(repr=False)

    def arrived(self) -> list[Callable[[], Prepared]]:
        """Wait for the batch. Each of what it gives hashes one image, which takes longer than drawing it."""
        pictures, *decoded = self.fetched.wait()
        return [
            partial(self._prepared, plan, picture, pixels)
            for plan, picture, pixels in zip(self.plans, pictures, decoded, strict=True)
        ]

    def prepared(self) -> list[Prepared]:
        """Wait for the batch and hash it; Mammograms come back with their pixels in host memory."""
        return [hashed() for hashed in self.arrived()]

    def _prepared(self, plan: Plan, picture: npt.NDArray[Any], pixels: npt.NDArray[Any]) -> Prepared:
        return Prepared(
            mammogram=replace(plan.mammogram, pixels=pixels),
            geometry=plan.geometry,
            voi=plan.voi,
            pixels=picture,
            bits=self.bits,
            decoded_sha256=decoded_sha256(pixels),
            pixels_sha256=decoded_sha256(picture),
            background_blanked=plan.drawing.kept is not None,
        )


def plan(mammogram: Mammogram, findings: Findings, config: ResultConfig) -> Plan:
    """Decide all that can be decided without pixels. Raises RejectedInput, as render.render."""
    pixels = without_bright_padding(mammogram, findings)
    image = mammogram.instance.image
    geometry = fit(findings.box, config.height, config.width, config.orient, pixel_aspect(image))
    choice, table = window(mammogram, findings, config)
    rows, columns, shift = axes(pixels.shape, geometry, mammogram.level)
    kept = background.kept_of_content(findings, geometry, image, config)
    drawing = Drawing(
        pixels=pixels,
        rows=rows,
        columns=columns,
        shift=shift,
        table=table,
        content_row=geometry.content_row,
        content_column=geometry.content_column,
        kept=None if kept is None else Kept(kept.mask, kept.rows, kept.columns),
    )
    return Plan(mammogram, geometry, choice, drawing)


def render_batch(plans: Sequence[Plan], config: ResultConfig) -> Rendering:
    """Queue the drawing of a batch, and the copies of pictures and decoded pixels to the host."""
    gpu = kernels.gpu()
    output = gpu.batch_output(len(plans), config.height, config.width, config.bits)
    gpu.draw([plan.drawing for plan in plans], output)
    fetched = gpu.fetch([output, *(plan.mammogram.pixels for plan in plans)])
    return Rendering(tuple(plans), config.bits, fetched)
