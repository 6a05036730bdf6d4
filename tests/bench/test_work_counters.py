"""A regression guard that counts work instead of timing it: the same on every machine, at any load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.phantom_dicom import SYNTAXES, DicomSpec, write_dicom
from preprocess import jpeg2000
from preprocess.config import ResultConfig
from preprocess.decode import CpuDecoder
from preprocess.jpeg2000 import code_blocks, decoder
from preprocess.kernels import compiled
from preprocess.pipeline import steps
from preprocess.records import SourceFile

ROWS, COLUMNS = 2304, 1792
FULL = ROWS * COLUMNS
COARSE = FULL >> 4


@dataclass(slots=True)
class Work:
    """What one image cost."""

    levels: list[int] = field(default_factory=list)
    samples: int = 0
    codestream_bytes: int = 0
    code_blocks: int = 0
    coded_bytes: int = 0
    """Of those code-blocks."""
    touched: Counter[str] = field(default_factory=Counter)
    """Samples that went into each kernel."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A breast-like half ellipse with texture: 12 bits, JPEG 2000 as in RSNA's files, five levels."""
    rows, columns = np.mgrid[0:ROWS, 0:COLUMNS].astype(np.float32)
    inside = ((rows - ROWS / 2) / 900) ** 2 + (columns / 1100) ** 2
    grain = np.random.default_rng(4).integers(0, 60, (ROWS, COLUMNS))
    pixels = np.where(inside < 1, 900 + 1800 * (1 - inside) + grain, 40).astype(np.uint16)
    path = tmp_path_factory.mktemp("counters") / "1.dcm"
    spec = DicomSpec(
        transfer_syntax_uid=SYNTAXES["jpeg-2000"], bits_stored=12, windows=(("2048", "4096"),), boxed=True,
        codestream_bits=16,
    )  # fmt: skip
    write_dicom(path, pixels, spec)
    return path


def work_of(path: Path, config: ResultConfig, monkeypatch: pytest.MonkeyPatch) -> Work:
    """Prepare one image and count."""
    work = Work()

    decode_from, decode_blocks = jpeg2000.decode_from, decoder.decode_blocks

    def decoded(low: Any, codestream: bytes, facts: Any, level: int) -> Any:
        own = decode_from(low, codestream, facts, level)
        assert own is not None
        work.levels.append(level)
        work.samples += own[0].size
        work.codestream_bytes += len(codestream)
        return own

    def counted_blocks(data: Any, table: Any, bands: Any) -> bool:
        wanted = table[table[:, code_blocks.TARGET] >= 0]
        work.code_blocks += len(wanted)
        work.coded_bytes += int(wanted[:, code_blocks.LENGTH].sum())
        return decode_blocks(data, table, bands)

    def counted(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def count(first: Any, *rest: Any, **more: Any) -> Any:
            work.touched[name] += getattr(first, "size", 0)
            return kernel(first, *rest, **more)

        return count

    monkeypatch.setattr(jpeg2000, "decode_from", decoded)
    monkeypatch.setattr(decoder, "decode_blocks", counted_blocks)
    for name in compiled.__all__:
        monkeypatch.setattr(compiled, name, counted(name, getattr(compiled, name)))
    trace = steps(SourceFile("1.dcm", str(path), explicit=True), config, CpuDecoder())
    assert trace.prepared is not None, trace.reject
    return work


@pytest.mark.parametrize(
    ("size", "levels"),
    [((256, 128), [2]), ((512, 256), [2, 1]), ((1024, 512), [2, 0]), ((2048, 1024), [0])],
)
def test_levels_and_samples_decoded_are_no_more_than_needed(
    image: Path, size: tuple[int, int], levels: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = work_of(image, ResultConfig(height=size[0], width=size[1]), monkeypatch)
    assert work.levels == levels
    assert work.samples == sum(FULL >> 2 * level for level in levels)


def test_no_code_block_is_decoded_twice(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A level goes on from the coarse one that the breast was found on."""
    quick = {"height": 512, "width": 256}
    both = work_of(image, ResultConfig(**quick), monkeypatch)
    monkeypatch.undo()
    alone = work_of(image, ResultConfig(**quick, decode="1"), monkeypatch)
    assert both.levels == [2, 1]
    assert alone.code_blocks == both.code_blocks
    assert alone.coded_bytes == both.coded_bytes < 0.4 * image.stat().st_size


def test_the_codestream_is_read_once_per_decode(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = work_of(image, ResultConfig(height=512, width=256), monkeypatch)
    assert work.codestream_bytes <= len(work.levels) * image.stat().st_size


@pytest.mark.parametrize(("decode", "final"), [("auto", FULL >> 2), ("full", FULL)])
def test_kernels_touch_each_sample_a_bounded_number_of_times(
    image: Path, decode: str, final: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mask works on the coarse level only, rendering on the box only, the table on the output only."""
    config = ResultConfig(height=512, width=256, decode=decode)
    touched = work_of(image, config, monkeypatch).touched
    rendering = {name: touched.pop(name, 0) for name in ("to_index", "block_mean", "resample", "look_up")}
    # Where all of it was decoded, the coarse level is made of it, in two steps.
    assert touched.pop("low_pass", 0) == (FULL + FULL // 4 if decode == "full" else 0)
    assert touched.total() <= 12.6 * COARSE
    assert touched["shift_mean"] == COARSE
    assert max(rendering.values()) <= 0.56 * final
    assert rendering["look_up"] <= 512 * 256
