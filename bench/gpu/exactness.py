"""Are the device's pixels right? Checks (a), (b), (c) and (d) of the GPU path.

In:  a Context.
Out: figures; `ok` says that what the router relies on holds, or is barred.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import imagecodecs
import numpy as np

from bench.gpu.context import Context, Figures
from dali_pipelines import proof
from dali_pipelines.decoder import Decoded
from dali_pipelines.engines import Encoded, Engine
from dali_pipelines.routes import MAX_PRECISION, MIN_PRECISION, Where, route
from dali_pipelines.values import Array, undo_range
from preprocess.codestream import deepest_level
from preprocess.decode import CpuDecoder, Request
from preprocess.errors import RejectedInput
from preprocess.records import Compression, Instance, Mammogram
from preprocess.wavelet import low_pass_53

_WAVELETS = (Compression.JPEG_2000, Compression.HTJ2K)
_MUTANTS = 200
_LOSSY = "1.2.840.10008.1.2.4.91"


def range_rule(context: Context) -> bool:
    """(a) What engines do to the values of each precision at level 0. `ok`: 10 to 16 bits are usable."""
    proven = {(case.engine, case.compression, case.precision, case.level): kind
              for case, kind in context.decoder.proof.proven}  # fmt: skip
    engines = context.decoder.engines
    usable = []
    for engine in (*engines.full, *engines.levels):
        for compression in _WAVELETS:
            found = {
                str(bits): str(proven.get((engine.name, compression, bits, 0), "wrong"))
                for bits in range(MIN_PRECISION, MAX_PRECISION + 1)
            }
            context.figures[f"{engine.name} {compression.value}"] = {**found}
            usable.append(all(found[str(bits)] != "wrong" for bits in (10, 12, 14, 16)))
    context.figures["8 bits"] = _eight_bits(context)
    return bool(usable) and all(usable)


def _eight_bits(context: Context) -> Figures:
    """What comes of 8-bit samples, which are decoded on the CPU whatever this says."""
    pixels = proof.vector(8).astype(np.uint8)
    data = bytes(imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True))
    job = Encoded(data, Compression.JPEG_2000, 8, 0, *pixels.shape)
    found: Figures = {}
    for engine in context.decoder.engines.full:
        values = _host(context, _decoded(engine, [job])[0])
        found[engine.name] = "failed" if values is None else _kind_of_eight(values, pixels)
    return found


def _kind_of_eight(values: Array, pixels: Array) -> str:
    wide = pixels.astype(np.int64)
    for name, truth in (("raw", wide), ("x257", wide * 257), ("x256", wide * 256)):
        if np.array_equal(values, truth):
            return name
    return "other"


def overshoot(context: Context) -> bool:
    """(d) Planted overshoot and undershoot at levels 0 to 5. `ok`: everything is clamped, nothing barred."""
    whole = True
    for engine in context.decoder.engines.levels:
        for bits in (9, 12, 16):
            jobs = proof.jobs(Compression.JPEG_2000, bits, range(proof.DEEPEST + 1))
            results = _decoded(engine, jobs)
            kinds = [
                _clamping(_host(context, values), job) for job, values in zip(jobs, results, strict=True)
            ]
            context.figures[f"{engine.name} {bits} bits, levels 0 to 5"] = [*kinds]
            whole &= set(kinds) == {"clamps"}
    context.figures["8 bits"] = "not decoded on a GPU"
    return whole


def _clamping(values: Array | None, job: Encoded) -> str:
    if values is None:
        return "failed"
    samples = low_pass_53(proof.vector(job.precision), job.level)
    if np.array_equal(values, samples.clip(0, (1 << job.precision) - 1)):
        return "clamps"
    for name, top in (("wraps to its bits", (1 << job.precision) - 1), ("wraps to 16 bits", 0xFFFF)):
        if np.array_equal(values, samples & top):
            return name
    if np.array_equal(values, samples.clip(0, 0xFFFF)):
        return "clamps to 16 bits"
    return f"other, {np.count_nonzero(values != samples.clip(0, (1 << job.precision) - 1))} samples differ"


def lossless_jpeg(context: Context) -> bool:
    """(c) JPEG Lossless at 10 to 16 bits through engines the router does not use for it. `ok`: it ran."""
    for engine in context.decoder.engines.full:
        for bits in (10, 12, 14, 16):
            pixels = proof.vector(bits)
            data = bytes(imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=1, bitspersample=bits))
            job = Encoded(data, Compression.JPEG_LOSSLESS, bits, 0, *pixels.shape)
            values = _host(context, _decoded(engine, [job])[0])
            context.figures[f"{engine.name} {bits} bits"] = _verdict(values, pixels, bits)
            engine.reset()
    return True


def _verdict(values: Array | None, pixels: Array, bits: int) -> str:
    if values is None:
        return "refused"
    if not np.asarray(values).any():
        return "zeros and success"
    if np.array_equal(values, pixels):
        return "right"
    undone = undo_range(values, bits)
    return "right, scaled" if np.array_equal(undone, pixels) else "wrong"


def pixels(context: Context) -> bool:
    """(b) Small phantoms, and real files, at every level: the CPU's pixels and rejects; by whom decoded."""
    differing: list[str] = []
    used: Counter[str] = Counter()
    for image in context.small:
        levels = range(deepest_level(image.image, image.codestream) + 1)
        requests = [Request(image, level) for level in levels]
        for request, result in zip(requests, context.decoder.decode_batch(requests), strict=True):
            if not _same(context, result, request):
                differing.append(f"{image.source.source} level {request.level}")
            elif isinstance(result, Mammogram):
                used[result.decoder] += 1
    context.figures |= {"differing": [*differing[:20]], "count": len(differing), "used": {**used}}
    return not differing and sum(used.values()) > 0


def lossy(context: Context) -> bool:
    """(b) Lossy JPEG 2000 where it is allowed on the device: within 1 of the CPU, at levels 0 to 2."""
    allowed = type(context.decoder)(
        context.decoder.engines, context.host, allow_inexact=True, proof=context.decoder.proof
    )
    largest = 0
    for image in context.full[:2]:
        source = CpuDecoder().decode(image).pixels
        data = bytes(
            imagecodecs.jpeg2k_encode(
                source.astype(np.uint16), level=60, codecformat="j2k", bitspersample=16, reversible=False
            )
        )
        for level in (0, 1, 2):
            asked = _with_payload(image, data, _LOSSY)
            result = allowed.decode(asked, level)
            truth = CpuDecoder().decode(asked, level).pixels.astype(np.int64)
            mine = np.asarray(context.decoder.engines.memory.to_host(result.pixels)).astype(np.int64)
            difference = int(np.abs(mine - truth).max())
            context.figures[f"{image.source.source} level {level} by {result.decoder}"] = difference
            largest = max(largest, difference)
    return largest <= 1


def damage(context: Context) -> bool:
    """(d) Damaged streams. `ok`: no reject differs from the CPU's, and the device works on afterwards.

    `passed` counts damage that the CPU's own checks reject and the device decodes without an error.
    """
    good = [image for image in context.small if route(image).where is Where.GPU]
    if not good:
        return False
    counts: Counter[str] = Counter()
    for mutant in _mutants(good, _MUTANTS):
        try:
            (result,) = context.decoder.decode_batch([Request(mutant)])
        except ValueError:
            counts["level refused"] += 1
            continue
        counts[_damage_kind(context, result, mutant)] += 1
    after = [Request(image) for image in good[:16]]
    alive = all(
        _same(context, result, request)
        for request, result in zip(after, context.decoder.decode_batch(after), strict=True)
    )
    context.figures |= {"mutants": {**counts}, "device works on": alive}
    return alive and not counts["another reject"]


def _mutants(images: Sequence[Instance], count: int) -> list[Instance]:
    """Bytes overwritten, cut out, or cut off, from a fixed seed; headers kept."""
    chance = random.Random(20)
    mutants: list[Instance] = []
    kinds: tuple[Callable[[bytearray, int], bytes], ...] = (
        lambda data, at: bytes(data[:at]) + bytes([data[at] ^ 0x55]) + bytes(data[at + 1 :]),
        lambda data, at: bytes(data[:at]) + bytes(64) + bytes(data[at + 64 :]),
        lambda data, at: bytes(data[:at]) + bytes(data[at + 16 :]),
        lambda data, at: bytes(data[:at]),
    )
    while len(mutants) < count:
        image = chance.choice(images)
        data = bytearray(image.payload)
        if len(data) < 1200:
            continue
        payload = chance.choice(kinds)(data, chance.randrange(600, len(data) - 100))
        try:
            mutants.append(_with_payload(image, payload, image.image.transfer_syntax_uid))
        except RejectedInput:
            continue  # refused before any decoder sees it
    return mutants


def _damage_kind(context: Context, result: Decoded, mutant: Instance) -> str:
    try:
        truth: Decoded = CpuDecoder().decode(mutant)
    except RejectedInput as reject:
        truth = reject
    if isinstance(truth, RejectedInput):
        if not isinstance(result, RejectedInput):
            return "passed"
        alike = (result.code, result.message) == (truth.code, truth.message)
        return "same reject" if alike else "another reject"
    if isinstance(result, RejectedInput):
        return "another reject"
    return "same pixels" if _same(context, result, Request(mutant)) else "other pixels"


def _with_payload(image: Instance, payload: bytes, syntax: str) -> Instance:
    from preprocess.codestream import compression_of, read_facts

    facts = read_facts(payload, compression_of(syntax))
    return replace(
        image, payload=payload, codestream=facts, image=replace(image.image, transfer_syntax_uid=syntax)
    )


def _same(context: Context, result: Decoded, request: Request) -> bool:
    try:
        truth: Decoded = CpuDecoder().decode(request.instance, request.level)
    except RejectedInput as reject:
        truth = reject
    if isinstance(truth, RejectedInput) or isinstance(result, RejectedInput):
        return (
            isinstance(truth, RejectedInput)
            and isinstance(result, RejectedInput)
            and (result.code, result.message) == (truth.code, truth.message)
        )
    pixels = context.decoder.engines.memory.to_host(result.pixels)
    return bool(np.array_equal(pixels, truth.pixels)) and result.above_bits_stored == truth.above_bits_stored


def _decoded(engine: Engine, jobs: Sequence[Encoded]) -> Sequence[Array | None]:
    try:
        results = engine.decode(jobs)
    except (RuntimeError, MemoryError):
        engine.reset()
        return [None] * len(jobs)
    return results if len(results) == len(jobs) else [None] * len(jobs)


def _host(context: Context, values: Array | None) -> Array | None:
    return None if values is None else context.decoder.engines.memory.to_host(values)
