"""The router: whatever an engine does, the pixels and rejects are the CPU's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pytest

from dali_pipelines.decoder import INEXACT, DaliDecoder
from dali_pipelines.engines import Wish
from preprocess.decode import CpuDecoder, Request
from preprocess.errors import RejectedInput
from preprocess.records import Instance, Mammogram
from tests.dali_pipelines.simulated import BUCKETS, bucket, engines_of
from tests.instances import header, instance, smooth

ENGINES = ["batch", "single", "level"]


def j2k(bits: int, seed: int, shape: tuple[int, int] = (180, 150), **changes: object) -> Instance:
    data = imagecodecs.jpeg2k_encode(
        smooth(shape, bits, seed), level=0, codecformat="j2k", bitspersample=bits, reversible=True
    )
    return instance(bytes(data), header(shape, "jpeg_2000", bits_stored=bits, **changes))


def htj2k(seed: int) -> Instance:
    return instance(
        bytes(imagecodecs.htj2k_encode(smooth((90, 70), 16, seed), reversible=True)),
        header((90, 70), "htj2k"),
    )


def lossy() -> Instance:
    data = imagecodecs.jpeg2k_encode(
        smooth((180, 150), 12), level=40, codecformat="j2k", bitspersample=12, reversible=False
    )
    return instance(bytes(data), header((180, 150), "1.2.840.10008.1.2.4.91", bits_stored=12))


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    """One image at least in every bucket, at several levels; some that only the CPU decodes; damaged ones."""
    found: dict[int, Instance] = {}
    seed = 0
    while len(found) < BUCKETS:
        image = j2k(9 + seed % 8, seed)
        found.setdefault(bucket(image.payload), image)
        seed += 1
    images = [*found.values(), htj2k(1), j2k(8, 0, bits_allocated=8)]
    wanted = [Request(image, level) for level in (0, 1, 2) for image in images]
    lossless = imagecodecs.jpeg8_encode(smooth((90, 70), 12), lossless=True, predictor=1, bitspersample=12)
    wanted.append(Request(instance(bytes(lossless), header((90, 70), "jpeg_lossless", bits_stored=12))))
    cut = found[0]
    wanted.append(Request(instance(cut.payload[: len(cut.payload) // 2], cut.image)))
    garbled = bytearray(cut.payload)
    garbled[len(garbled) // 2 : len(garbled) // 2 + 400] = bytes(400)
    wanted.append(Request(instance(bytes(garbled), cut.image)))
    zeros = imagecodecs.jpeg2k_encode(
        np.zeros((90, 70), np.uint16), level=0, codecformat="j2k", bitspersample=12, reversible=True
    )
    wanted.append(Request(instance(bytes(zeros), header((90, 70), "jpeg_2000", bits_stored=12))))
    return wanted


def by_cpu(request: Request) -> Mammogram | RejectedInput:
    try:
        return CpuDecoder().decode(request.instance, request.level)
    except RejectedInput as reject:
        return reject


def decoder(host: ThreadPoolExecutor, **settings: object) -> DaliDecoder:
    return DaliDecoder(engines_of(Wish(1_000_000, 2, batch=16), settings), host)


def assert_same(results: Sequence[Mammogram | RejectedInput], requests: Sequence[Request]) -> list[str]:
    """Pixels, counts and rejects are the CPU's; the decoders that were used."""
    assert len(results) == len(requests)
    for result, request in zip(results, requests, strict=True):
        truth = by_cpu(request)
        if isinstance(truth, RejectedInput):
            assert isinstance(result, RejectedInput)
            assert (result.code, result.message) == (truth.code, truth.message)
        else:
            assert isinstance(result, Mammogram), result
            assert result.pixels.dtype == truth.pixels.dtype
            assert np.array_equal(result.pixels, truth.pixels)
            assert (result.level, result.above_bits_stored) == (truth.level, truth.above_bits_stored)
    return [result.decoder for result in results if isinstance(result, Mammogram)]


@pytest.mark.parametrize("scale", [False, True])
def test_every_result_is_the_cpus(host: ThreadPoolExecutor, requests: list[Request], scale: bool) -> None:
    used = assert_same(decoder(host, scale=scale).decode_batch(requests), requests)
    assert used.count("batch") == 7
    assert used.count("level") == 14
    assert {"jpeg2000", "jpeg_lossless"} < set(used)


@pytest.mark.parametrize("deed", ["zero", "fail", "short", "crop", "refuse"])
def test_whatever_an_engine_does_wrong_the_pixels_are_right(
    host: ThreadPoolExecutor, requests: list[Request], deed: str
) -> None:
    used = assert_same(decoder(host, **{deed: [1, 4]}).decode_batch(requests), requests)
    assert "jpeg2000" in used


def test_a_failed_batch_is_redone_one_by_one_and_costs_only_the_bad(
    host: ThreadPoolExecutor, requests: list[Request]
) -> None:
    used = assert_same(decoder(host, fail=[2]).decode_batch(requests), requests)
    assert used.count("single") == 6  # six of seven, after the batch had failed
    assert used.count("batch") == 0


def test_all_misfortunes_at_once(host: ThreadPoolExecutor, requests: list[Request]) -> None:
    settings = {"scale": True, "zero": [0], "fail": [1], "short": [2], "crop": [3], "refuse": [4]}
    assert_same(decoder(host, **settings).decode_batch(requests), requests)


def test_an_engine_that_wraps_is_barred_from_those_levels(
    host: ThreadPoolExecutor, requests: list[Request]
) -> None:
    barred = decoder(host, wrap=True)
    assert {case.level for case, _ in barred.proof.proven if case.engine == "level"} == {0}
    assert set(assert_same(barred.decode_batch(requests), requests)) >= {"batch", "openjpeg"}
    assert not barred.takes(Request(requests[0].instance, 1))
    assert barred.takes(Request(requests[0].instance, 0))


def test_without_engines_everything_is_the_cpus(host: ThreadPoolExecutor, requests: list[Request]) -> None:
    used = assert_same(decoder(host, only=[]).decode_batch(requests), requests)
    assert not set(used) & set(ENGINES)


def test_a_device_that_failed_for_good_is_not_blamed_on_an_image(
    host: ThreadPoolExecutor, requests: list[Request]
) -> None:
    with pytest.raises(RuntimeError, match="illegal memory access"):
        decoder(host, sticky=[3]).decode_batch(requests)


def test_lossy_streams_go_to_the_device_only_where_that_is_allowed(host: ThreadPoolExecutor) -> None:
    image = lossy()
    engines = engines_of(Wish(1_000_000, 2, batch=4), {})
    assert DaliDecoder(engines, host).decode(image).decoder == "openjpeg"
    allowed = DaliDecoder(engines, host, allow_inexact=True).decode(image)
    assert allowed.decoder == "batch" + INEXACT
    difference = allowed.pixels.astype(int) - CpuDecoder().decode(image).pixels
    assert np.abs(difference).max() <= 1


def test_a_level_that_is_not_there_is_refused_as_by_the_cpu(host: ThreadPoolExecutor) -> None:
    with pytest.raises(ValueError, match="level 9"):
        decoder(host).decode(j2k(12, 0), 9)


def test_pixels_above_bits_stored_are_clamped_and_counted(host: ThreadPoolExecutor) -> None:
    image = j2k(16, 3)
    narrow = dataclasses.replace(image, image=header((180, 150), "jpeg_2000", bits_stored=12))
    result = decoder(host).decode(narrow)
    assert result.above_bits_stored > 0
    assert_same([result], [Request(narrow)])
