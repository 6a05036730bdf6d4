"""Stages given arrays of a device: the same findings and pictures as on the host, alone and in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess import padding, render, render_batch, roi
from preprocess.config import Background, ResultConfig, WindowPolicy
from preprocess.decode import CpuDecoder
from preprocess.kernels import reference, seam
from preprocess.pipeline import Trace, steps
from preprocess.records import Mammogram, Padding, Prepared, SourceFile
from tests.instances import header, instance
from tests.kernels import shim

SMALL = {"height": 128, "width": 64}
CONFIGS = {
    "window of the header": ResultConfig(**SMALL),
    "8 bits, level 0": ResultConfig(**SMALL, bits=8, decode="full"),
    "percentile, blank": ResultConfig(
        **SMALL, window=WindowPolicy.PERCENTILE, background=Background.BLANK, margin_px=8
    ),
    "tiny, in the middle": ResultConfig(height=16, width=16, decode="full", orient="keep"),
}


@cache
def on_the_host(path: Path, config: ResultConfig) -> Trace:
    return steps(SourceFile(str(path), str(path)), config, CpuDecoder())


def there(mammogram: Mammogram, kernels: Any) -> Mammogram:
    return replace(mammogram, pixels=kernels.upload(mammogram.pixels))


def pictures(folder: Path, count: int) -> Iterator[Path]:
    yield from sorted(folder.rglob("*.dcm"))[:count]


def check_findings(found: roi.Findings, expected: roi.Findings) -> None:
    assert found == expected
    assert (found.component is None) == (expected.component is None)
    if found.component is not None:
        np.testing.assert_array_equal(seam.to_host(found.component), expected.component)


def check_prepared(made: Prepared, expected: Prepared) -> None:
    np.testing.assert_array_equal(made.pixels, expected.pixels)
    assert made.pixels.dtype == expected.pixels.dtype
    host = replace(made, mammogram=expected.mammogram, pixels=expected.pixels)
    assert repr(host) == repr(expected)
    assert (made.pixels_sha256, made.decoded_sha256) == (expected.pixels_sha256, expected.decoded_sha256)


def check_traces(traces: list[Trace], config: ResultConfig, kernels: Any) -> None:
    """The breast, the picture alone, and the pictures in one batch."""
    plans = []
    for trace in traces:
        assert trace.coarse is not None
        assert trace.mammogram is not None
        assert trace.findings is not None
        assert trace.prepared is not None
        found = roi.find(there(trace.coarse, kernels), config)
        check_findings(found, trace.findings)
        mammogram = there(trace.mammogram, kernels)
        check_prepared(render.render(mammogram, found, config), trace.prepared)
        plans.append(render_batch.plan(mammogram, found, config))
    for made, trace in zip(render_batch.render_batch(plans, config).prepared(), traces, strict=True):
        assert trace.prepared is not None
        check_prepared(made, trace.prepared)


@pytest.mark.parametrize("name", CONFIGS)
def test_phantoms_have_the_same_breast_and_picture(name: str, phantoms: Path, device_kernels: Any) -> None:
    config = CONFIGS[name]
    traces = [on_the_host(path, config) for path in pictures(phantoms, 8)]
    check_traces([trace for trace in traces if trace.prepared is not None], config, device_kernels)


@pytest.mark.parametrize("folder", ["mg", "j2k", "xr"])
def test_real_files_have_the_same_breast_and_picture(
    folder: str, real_data: Path, device_kernels: Any
) -> None:
    config = ResultConfig(height=512, width=256)
    traces = [on_the_host(path, config) for path in sorted((real_data / folder).rglob("*")) if path.is_file()]
    prepared = [trace for trace in traces if trace.prepared is not None]
    assert prepared
    check_traces(prepared, config, device_kernels)


def test_bright_padding_is_replaced_on_the_device(device_kernels: Any) -> None:
    pixels = np.random.default_rng(1).integers(100, 900, (200, 150)).astype(np.uint16)
    pixels[:, :40] = 4000
    rule = padding.PaddingRule(4000, 4000, 4)
    there = device_kernels.upload(pixels)
    masked = padding.mask(there, rule)
    np.testing.assert_array_equal(seam.to_host(masked), padding.mask(pixels, rule))
    for mixed in (False, True):
        value = padding.replacement(there, rule, masked, False, mixed)
        assert value == padding.replacement(pixels, rule, padding.mask(pixels, rule), False, mixed)
        assert value is not None
        replaced = seam.to_host(padding.replace(there, rule, value))
        np.testing.assert_array_equal(replaced, padding.replace(pixels, rule, value))


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_an_image_with_bright_padding_is_prepared_on_the_device(dtype: Any, device_kernels: Any) -> None:
    rows, columns = np.indices((300, 260))
    inside = ((rows - 150) / 120) ** 2 + (columns / 150) ** 2 < 1
    noise = np.random.default_rng(3).integers(0, 9, inside.shape)
    pixels = np.where(inside, 900 + noise, 40 + noise).astype(dtype)
    pixels[:, 230:] = 2000
    facts = header(pixels.shape, "little", pixel_representation=int(dtype is np.int16))
    facts = replace(facts, bits_stored=12, high_bit=11)
    of = replace(instance(b"", facts), padding=Padding(2000, 2000))
    config = ResultConfig(**SMALL, window=WindowPolicy.FULL)
    expected = roi.find(Mammogram(of, pixels, 0, "test"), config)
    assert expected.padding_replacement is not None
    mammogram = Mammogram(of, device_kernels.upload(pixels), 0, "test")
    found = roi.find(mammogram, config)
    check_findings(found, expected)
    on_host = render.render(Mammogram(of, pixels, 0, "test"), expected, config)
    check_prepared(render.render(mammogram, found, config), on_host)
    plan = render_batch.plan(mammogram, found, config)
    check_prepared(render_batch.render_batch([plan], config).prepared()[0], on_host)


def test_a_batch_waits_for_the_device_once(phantoms: Path, device_kernels: Any) -> None:
    if not isinstance(device_kernels.kernels, shim.ShimKernels):
        pytest.skip("only the compiled kernels count")
    config = CONFIGS["window of the header"]
    traces = [on_the_host(path, config) for path in pictures(phantoms, 6)]
    plans, device = [], device_kernels.device
    before, launched = device.waits, len(device.launches)
    for trace in traces:
        assert trace.mammogram is not None
        assert trace.findings is not None
        plans.append(render_batch.plan(there(trace.mammogram, device_kernels), trace.findings, config))
    rendering = render_batch.render_batch(plans, config)
    assert device.waits == before
    assert [launch.kernel for launch in device.launches[launched:]] == ["darkest", "pictures"]
    assert len(rendering.prepared()) == len(plans)
    assert device.waits == before + 1


def test_the_seam_has_every_kernel_of_the_reference_and_so_has_cupy() -> None:
    cuda = pytest.importorskip("preprocess.kernels.cuda")
    assert set(reference.__all__) <= set(seam.__all__)
    assert set(reference.__all__) <= set(cuda.__all__)
    assert all(callable(getattr(cuda, name)) for name in cuda.__all__)


def test_cupy_has_the_numpy_functions_that_stages_call_on_its_arrays() -> None:
    cupy = pytest.importorskip("cupy")
    for function in shim.FUNCTIONS:
        assert callable(getattr(cupy, function.__name__))
    for method in ("min", "max", "any", "all", "copy", "astype"):
        assert callable(getattr(cupy.ndarray, method))
