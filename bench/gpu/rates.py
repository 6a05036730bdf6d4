"""How fast the device decodes, by engine, batch, threads and level; memory. Checks (e), (g) and (h).

In:  a Context; full-size phantoms that the router sends to the GPU.
Out: images a second, bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.gpu.context import Context, Figures, engines_of, rate
from bench.gpu.device import bytes_in_use
from dali_pipelines.engines import Encoded, Engine
from dali_pipelines.routes import Where, route
from preprocess.codestream import deepest_level, level_size, repair

BATCHES = (16, 64)
THREADS = (1, 8, 16, 32)
LEVELS = (0, 1, 2, 3)
_SAMPLE_S = 0.005


def bare(context: Context) -> bool:
    """(e) Each engine alone: images a second by batch × threads at level 0, and by level × threads."""
    done = 0
    for threads in THREADS:
        for batch in BATCHES:
            if batch < threads:
                continue
            with engines_of(context, batch=batch, threads=threads) as engines:
                for engine in engines.full[:1]:
                    key = f"{engine.name} level 0 batch {batch} threads {threads}"
                    context.figures[key] = _rate(context, engine, jobs(context, 0, 2 * batch))
                    done += 1
        with engines_of(context, batch=16, threads=threads) as engines:
            for engine in engines.levels:
                for level in LEVELS:
                    key = f"{engine.name} level {level} threads {threads}"
                    context.figures[key] = _rate(context, engine, jobs(context, level, 32))
                    done += 1
    return done > 0


def compared(context: Context) -> bool:
    """(h) DALI, nvImageCodec and nvJPEG2000 with the same full-size images, in turns."""
    with engines_of(context) as engines:
        asked = jobs(context, 0, min(32, 2 * engines.sizes.batch))
        context.figures["images"] = len(asked)
        every = (*engines.full, *engines.levels)
        for turn in (1, 2):
            for engine in every:
                context.figures[f"{engine.name} turn {turn}"] = _rate(context, engine, asked)
    return bool(every)


def peak(context: Context) -> bool:
    """(g) The most device memory in use while each engine decodes, beyond what was in use before."""
    for level in (0, 2):
        with engines_of(context) as engines:
            chosen: Sequence[Engine] = engines.levels if level else (*engines.full[:1], *engines.levels)
            for engine in chosen:
                asked = jobs(context, level, engines.sizes.batch)
                with _sampled() as used:
                    engine.decode(asked)
                pixels = max(1, max(job.rows * job.columns for job in asked))
                context.figures[f"{engine.name} level {level}"] = _memory(used, engines.sizes.threads, pixels)
    return True


def _memory(used: list[int], threads: int, pixels: int) -> Figures:
    peak_bytes = max(used) - used[0] if used else None
    return {
        "peak_bytes": peak_bytes,
        "threads": threads,
        "bytes_per_pixel_and_thread": round(peak_bytes / threads / pixels, 2) if peak_bytes else None,
    }


@contextmanager
def _sampled() -> Iterator[list[int]]:
    """Device memory in use, again and again; nothing where there is no CuPy with a device."""
    used: list[int] = []
    ask = bytes_in_use()
    ended = threading.Event()

    def sample() -> None:
        while ask is not None and not ended.wait(_SAMPLE_S):
            used.append(ask())

    if ask is not None:
        used.append(ask())
    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield used
    finally:
        ended.set()
        thread.join()


def jobs(context: Context, level: int, count: int) -> list[Encoded]:
    """`count` full-size images for the GPU at a level, again and again the same ones."""
    found: list[Encoded] = []
    for image in context.full:
        facts = image.codestream
        if route(image, level).where is Where.CPU or facts is None:
            continue
        if level > deepest_level(image.image, facts):
            continue
        size = level_size(facts.rows, facts.columns, level)
        codestream = repair(image.payload, facts)
        found.append(Encoded(codestream, facts.compression, facts.precision, level, *size))
    if not found:
        raise ValueError("no full-size image goes to the GPU")
    return [found[number % len(found)] for number in range(count)]


def _rate(context: Context, engine: Engine, asked: Sequence[Encoded]) -> Figures:
    failed = 0

    def work() -> int:
        nonlocal failed
        results = engine.decode(asked)
        failed += sum(result is None for result in results)
        return len(results)

    per_second, images = rate(work, context.request.seconds)
    return {"images_per_second": per_second, "images": images, "failed": failed}
