"""The DALI graph and nvImageCodec on their CPU backends: the same graph as on a GPU, exactly our pixels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest

from dali_pipelines.codec import CodecEngine
from dali_pipelines.decode import DaliEngine
from dali_pipelines.decoder import DaliDecoder
from dali_pipelines.engines import Encoded, Engines
from dali_pipelines.proof import Range, encode, vector
from dali_pipelines.routes import Where, route
from dali_pipelines.sizing import Sizes
from preprocess import dicom
from preprocess.codestream import repair
from preprocess.config import ResultConfig
from preprocess.decode import CpuDecoder, Request
from preprocess.errors import RejectedInput
from preprocess.records import Compression, Instance, Mammogram, SourceFile
from tests.dali_pipelines.simulated import NumpyMemory
from tests.instances import needs_data, smooth

pytest.importorskip("nvidia.dali", reason="the wheel is for Linux on x86-64")

SIZES = Sizes(batch=16, threads=2, prefetch=2)


def adopt(output: Any) -> np.ndarray:
    return np.array(output)[..., 0]


@pytest.fixture(scope="module")
def engines() -> Iterator[Engines]:
    dali = DaliEngine(SIZES, adopt, device="cpu", device_id=None)
    codec = CodecEngine(adopt, device_id=None)
    yield Engines(NumpyMemory(), full=(dali, codec), levels=(), sizes=SIZES, close=dali.close)
    dali.close()


@pytest.fixture(scope="module")
def decoder(engines: Engines) -> Iterator[DaliDecoder]:
    with ThreadPoolExecutor(2) as host:
        yield DaliDecoder(engines, host)


def job(bits: int, seed: int, shape: tuple[int, int] = (60, 50)) -> tuple[np.ndarray, Encoded]:
    pixels = smooth(shape, bits, seed)
    data = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", bitspersample=bits, reversible=True)
    return pixels, Encoded(bytes(data), Compression.JPEG_2000, bits, 0, *shape)


def test_on_the_cpu_both_engines_give_raw_values_at_every_precision(decoder: DaliDecoder) -> None:
    cases = {(case.engine, case.compression, case.precision): kind for case, kind in decoder.proof.proven}
    assert len(cases) == 32
    assert set(cases.values()) == {Range.RAW}


def test_batches_come_in_order(engines: Engines) -> None:
    pairs = [job(9 + number % 8, number, (40 + number, 30)) for number in range(40)]
    results = engines.full[0].decode([encoded for _, encoded in pairs])
    assert len(results) == 40
    for (pixels, _), result in zip(pairs, results, strict=True):
        assert np.array_equal(result, pixels)


def test_a_bad_sample_throws_its_batch_away_but_not_the_next(engines: Engines) -> None:
    pairs = [job(12, number) for number in range(40)]
    asked = [encoded for _, encoded in pairs]
    bad = asked[20]
    asked[20] = Encoded(bad.codestream[:300] + bytes(100), bad.compression, 12, 0, bad.rows, bad.columns)
    results = engines.full[0].decode(asked)
    assert [number for number, result in enumerate(results) if result is None] == list(range(16, 32))
    assert all(np.array_equal(results[number], pairs[number][0]) for number in (0, 15, 32, 39))
    alone = engines.full[1].decode(asked[16:32])
    assert [number for number, result in enumerate(alone, 16) if result is None] == [20]


def test_a_bad_sample_among_sixteen_costs_nothing_but_itself(decoder: DaliDecoder) -> None:
    from tests.instances import header, instance

    image = header((60, 50), "jpeg_2000", bits_stored=12)
    requests = [Request(instance(job(12, number)[1].codestream, image)) for number in range(16)]
    without_qcd = requests[5].instance.payload.replace(b"\xff\x5c", b"\xff\x5d", 1)
    requests[5] = Request(instance(without_qcd, image))
    results = decoder.decode_batch(requests)
    for number, (request, result) in enumerate(zip(requests, results, strict=True)):
        if number == 5:
            assert isinstance(result, RejectedInput)
            with pytest.raises(RejectedInput) as raised:
                CpuDecoder().decode(request.instance)
            assert (result.code, result.message) == (raised.value.code, raised.value.message)
        else:
            assert isinstance(result, Mammogram)
            assert np.array_equal(result.pixels, job(12, number)[0])


def test_htj2k_is_decoded_by_both(engines: Engines) -> None:
    (pixels, stream) = (vector(12), encode(Compression.HTJ2K, 12))
    encoded = Encoded(stream, Compression.HTJ2K, 12, 0, *pixels.shape)
    for engine in engines.full:
        (result,) = engine.decode([encoded])
        assert np.array_equal(result, pixels)


def instances(folder: Path) -> Iterator[Instance]:
    for path in sorted(folder.rglob("*.dcm")):
        with contextlib.suppress(RejectedInput):
            yield dicom.parse(SourceFile(path.name, str(path), explicit=True), ResultConfig())


def compare(decoder: DaliDecoder, engines: Engines, folder: Path) -> tuple[int, int]:
    """Files that go to the GPU: how many DALI itself decodes, and how many only the router (with the CPU)."""
    by_dali = by_router = 0
    for image in instances(folder):
        facts = image.codestream
        if route(image).where is Where.CPU or facts is None or facts.rows * facts.columns > 30_000_000:
            continue
        try:
            truth: Mammogram | RejectedInput = CpuDecoder().decode(image)
        except RejectedInput as reject:
            truth = reject
        (result,) = decoder.decode_batch([Request(image)])
        if isinstance(truth, RejectedInput):
            # damage that only the CPU's checks find may pass here; what is refused, is refused alike
            if isinstance(result, RejectedInput):
                assert (result.code, result.message) == (truth.code, truth.message)
            continue
        assert isinstance(result, Mammogram)
        assert np.array_equal(result.pixels, truth.pixels), image.source.source
        by_router += 1
        encoded = Encoded(
            repair(image.payload, facts), facts.compression, facts.precision, 0, facts.rows, facts.columns
        )
        (values,) = engines.full[0].decode([encoded])
        if values is not None:
            assert np.array_equal(values, truth.pixels), image.source.source
            by_dali += 1
    return by_dali, by_router


def test_dali_gives_exactly_our_pixels_for_phantoms(
    decoder: DaliDecoder, engines: Engines, phantoms: Path
) -> None:
    by_dali, by_router = compare(decoder, engines, phantoms)
    assert by_dali == by_router >= 10


@needs_data
@pytest.mark.parametrize("folder", ["mg", "j2k", "htj2k", "xr", "conformance"])
def test_dali_gives_exactly_our_pixels_for_real_files(
    decoder: DaliDecoder, engines: Engines, real_data: Path, folder: str
) -> None:
    by_dali, by_router = compare(decoder, engines, real_data / folder)
    assert by_dali <= by_router
