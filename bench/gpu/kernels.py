"""The kernels on a GPU: are they right there, how long do they take, how near are they to the memory's speed.

In:  a device (CuPy's, or in the tests the one without a GPU) and a timer.
Out: KernelReport: for each kernel its time, the bytes that it has to move at least, and that rate as a share
     of a copy within the device, measured in the same run; and what was checked against the host.

    python -m bench.gpu.kernels        one JSON object; needs a GPU
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from preprocess.kernels import reference
from preprocess.kernels.launches import Array, Device, Launch
from preprocess.kernels.pictures import Drawing
from preprocess.kernels.twins import Twins
from preprocess.records import ImageHeader
from preprocess.stored import Samples, to_stored
from preprocess.weights import Grid, axis_weights

SHAPES = ((1388, 1041), (1339, 1229), (2776, 2082))
"""Level 1 of a 2776 × 2082 image, level 2 of one of 5355 × 4915, and the first in full."""
OUTPUT = (1024, 512)
COPY_BYTES = 1 << 29
REPEATS = 20


@dataclass(frozen=True, slots=True)
class Checked:
    """One comparison of the device with the host."""

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class KernelTiming:
    """One kernel over a batch."""

    kernel: str
    images: int
    moved_bytes: int
    """Read and written at least once: input, output; not weights, tables and jobs."""
    seconds: float
    bytes_per_s: float
    share_of_copy: float


@dataclass(frozen=True, slots=True)
class KernelReport:
    """Everything measured in one run."""

    device: str
    copy_bytes_per_s: float
    timings: tuple[KernelTiming, ...]
    checks: tuple[Checked, ...]

    @property
    def ok(self) -> bool:
        """Whether every comparison held."""
        return all(check.ok for check in self.checks)

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps({"ok": self.ok, **dataclasses.asdict(self)}, indent=2)


class Timer(Protocol):
    """Times work that is queued on a device."""

    def seconds(self, work: Callable[[], object]) -> float:
        """The least time of one run, the device's own, after runs that warm it up."""
        ...


class Recorder:
    """A device that keeps what was launched, and all memory, so that each launch can be run again alone."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._kept: list[Array] = []
        self.launches: list[Launch] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """As the device's, and kept."""
        return self._keep(self._device.empty(shape, dtype))

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """As the device's, and kept."""
        return self._keep(self._device.zeros(shape, dtype))

    def upload(self, host: npt.NDArray[Any]) -> Array:
        """As the device's, and kept."""
        return self._keep(self._device.upload(host))

    def launch(self, launch: Launch) -> None:
        """Run and note."""
        self.launches.append(launch)
        self._device.launch(launch)

    def _keep(self, array: Array) -> Array:
        self._kept.append(array)
        return array


Copier = Callable[[Array, Array], object]
"""Copies one array into another, both on the device."""


def measure(
    device: Device,
    timer: Timer,
    copier: Copier,
    name: str,
    images: int = 32,
    shapes: Sequence[tuple[int, int]] = SHAPES,
) -> KernelReport:
    """Check and time every kernel of the batch path; `images` of each shape make a batch."""
    copied = _copy_rate(device, timer, copier)
    timings = []
    for shape in shapes:
        for launch, moved in _launches(device, [shape] * images):
            seconds = timer.seconds(device.prepared(launch))
            label = f"{launch.kernel} {shape[0]}x{shape[1]}"
            rate = moved / seconds
            timings.append(KernelTiming(label, images, moved, seconds, rate, rate / copied))
    return KernelReport(name, copied, tuple(timings), tuple(checks(Twins(device), device.upload)))


def _copy_rate(device: Device, timer: Timer, copier: Copier) -> float:
    """Bytes read and written per second by a copy of COPY_BYTES within the device."""
    source, target = (device.zeros((COPY_BYTES,), np.uint8) for _ in range(2))
    return 2 * COPY_BYTES / timer.seconds(partial(copier, target, source))


def _launches(device: Device, shapes: Sequence[tuple[int, int]]) -> list[tuple[Launch, int]]:
    """The launches of one batch on its way, each with the bytes that it has to move."""
    recorder = Recorder(device)
    kernels = Twins(recorder)
    random = np.random.default_rng(0)
    drawn = {shape: breast_like(random, shape) for shape in dict.fromkeys(shapes)}
    pixels = [device.upload(drawn[shape]) for shape in shapes]  # each its own: one would stay in the cache
    samples = [Samples(each, 16, False, "measured") for each in pixels]
    stored = kernels.clamp_to_stored(samples, [_image(shape) for shape in shapes], True)
    thumbnails = kernels.thumbnails(stored.pixels, [1] * len(shapes))
    coarse = kernels.low_passes(stored.pixels)
    drawings = [_drawing(each, shape) for each, shape in zip(stored.pixels, shapes, strict=True)]
    kernels.draw(drawings, kernels.batch_output(len(shapes), *OUTPUT, 16))
    kernels.largest_component(kernels.within(thumbnails[0], 300, 65535))
    area = sum(rows * columns for rows, columns in shapes)
    mask = thumbnails[0].shape[0] * thumbnails[0].shape[1]
    moved = {
        "to_stored": 4 * area,
        "block_mean": 2 * area + sum(4 * each.shape[0] * each.shape[1] for each in thumbnails),
        "low_pass": 2 * area + sum(4 * each.shape[0] * each.shape[1] for each in coarse),
        "darkest": 2 * area,
        "pictures": 2 * sum(rows * columns for rows, columns in map(_box, shapes))
        + 2 * len(shapes) * OUTPUT[0] * OUTPUT[1],
        "within": 5 * mask,
        "components_begin": 5 * mask,
        "components_unite": 4 * mask,
        "components_measure": 8 * mask,
        "components_choose": 4 * mask,
        "components_select": 5 * mask,
    }
    return [(launch, moved[launch.kernel]) for launch in recorder.launches]


def breast_like(random: np.random.Generator, shape: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """A bright half disk with noise on a dark background of one value."""
    rows, columns = np.indices(shape)
    inside = ((rows - shape[0] / 2) / (0.45 * shape[0])) ** 2 + (columns / (0.7 * shape[1])) ** 2 < 1
    noise = random.integers(-200, 200, shape)
    return np.where(inside, 1500 + noise, 20).astype(np.uint16)


def _image(shape: tuple[int, int]) -> ImageHeader:
    return ImageHeader(
        transfer_syntax_uid="1.2.840.10008.1.2.4.90",
        rows=shape[0],
        columns=shape[1],
        bits_allocated=16,
        bits_stored=12,
        high_bit=11,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
        inverted=False,
    )


def _box(shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a breast's box: 0.9 and 0.7 of the image's."""
    return 9 * shape[0] // 10, 7 * shape[1] // 10


def _drawing(pixels: Array, shape: tuple[int, int]) -> Drawing:
    """The box, mirrored, into the whole output."""
    spans = zip((shape[0] // 20, 0), _box(shape), strict=True)
    rows, columns = (
        axis_weights(start, size, outputs, Grid.of_level(0, samples), flipped)
        for (start, size), outputs, samples, flipped in zip(spans, OUTPUT, shape, (False, True), strict=True)
    )
    return Drawing(pixels, rows, columns, table=np.arange(65536, dtype=np.uint16))


def checks(kernels: Twins, upload: Callable[[npt.NDArray[Any]], Array]) -> list[Checked]:
    """The range rule, planted over- and undershoot, drawing, low-pass: the device against the host."""
    return [
        *(_range_rule(kernels, upload, precision) for precision in range(9, 17)),
        *(_overshoot(kernels, upload, bits) for bits in (8, 12, 16)),
        _drawn_as_the_reference(kernels, upload),
        _low_pass_as_the_reference(kernels, upload),
    ]


def _range_rule(kernels: Twins, upload: Callable[[npt.NDArray[Any]], Array], precision: int) -> Checked:
    """Every value of `precision` bits comes back from DALI's range, rounded down or to nearest."""
    values = np.arange(1 << precision, dtype=np.uint32).reshape(-1, 256)
    largest = (1 << precision) - 1
    wrong = 0
    for scaled in (values * 65535 // largest, (values * 65535 + largest // 2) // largest):
        plain = kernels.to_host(kernels.undo_range(upload(scaled.astype(np.uint16)), precision))
        wrong += int(np.count_nonzero(plain != values))
    return Checked(f"range rule, p = {precision}", wrong == 0, f"{wrong} of {2 * values.size} differ")


def _overshoot(kernels: Twins, upload: Callable[[npt.NDArray[Any]], Array], bits: int) -> Checked:
    """Samples below 0 and above 2^bits − 1, as a wavelet's low-pass has them, are clamped, not wrapped."""
    planted = np.array([[-900, -1, 0, 1], [2**bits - 2, 2**bits - 1, 2**bits, 2**bits + 900]], np.int32)
    image = replace(
        _image((2, 4)), bits_stored=bits, high_bit=bits - 1, bits_allocated=8 if bits == 8 else 16
    )
    stored = to_stored(Samples(planted, bits, False, "host"), image)
    expected, outside = stored.pixels, stored.outside
    made = kernels.clamp_to_stored([Samples(upload(planted), bits, False, "device")], [image])
    same = np.array_equal(kernels.to_host(made.pixels[0]), expected)
    counted = int(kernels.to_host(made.facts)[0, 0])
    return Checked(
        f"overshoot, p = {bits}", same and counted == outside, f"{counted} counted, {outside} expected"
    )


def _drawn_as_the_reference(kernels: Twins, upload: Callable[[npt.NDArray[Any]], Array]) -> Checked:
    shape = (700, 500)
    pixels = breast_like(np.random.default_rng(1), shape)
    drawing = _drawing(upload(pixels), shape)
    made = kernels.to_host(kernels.draw([drawing], kernels.batch_output(1, *OUTPUT, 16)))[0]
    expected = reference.resample(reference.to_index(pixels), drawing.columns, drawing.rows)
    wrong = int(np.count_nonzero(made != expected))
    return Checked("crop, flip, resample, look up", wrong == 0, f"{wrong} of {expected.size} differ")


def _low_pass_as_the_reference(kernels: Twins, upload: Callable[[npt.NDArray[Any]], Array]) -> Checked:
    """Two steps of a batch of odd and even sizes: stored values, then what overshoots their range."""
    random = np.random.default_rng(2)
    shapes = ((701, 500), (1, 64), (64, 1), (2, 3))
    expected: list[npt.NDArray[np.integer]] = [
        random.integers(0, 2, shape).astype(np.uint16) * np.uint16(65535) for shape in shapes
    ]
    bands = [upload(pixels) for pixels in expected]
    wrong = 0
    for _ in range(2):
        expected = [reference.low_pass(pixels) for pixels in expected]
        bands = kernels.low_passes(bands)
        wrong += sum(
            int(np.count_nonzero(kernels.to_host(band) != truth))
            for band, truth in zip(bands, expected, strict=True)
        )
    return Checked("5/3 low-pass", wrong == 0, f"{wrong} values differ")


class EventTimer:
    """Timer by CUDA events on CuPy's current stream."""

    def seconds(self, work: Callable[[], object]) -> float:
        """The least of REPEATS runs after three to warm up."""
        import cupy

        times = []
        for run in range(REPEATS + 3):
            start, stop = cupy.cuda.Event(), cupy.cuda.Event()
            start.record()
            work()
            stop.record()
            stop.synchronize()
            if run >= 3:
                times.append(cupy.cuda.get_elapsed_time(start, stop) / 1000)
        return float(min(times))


def copy_on_gpu(target: Any, source: Any) -> None:
    """The driver's own copy: CuPy's `copy` of bytes is a kernel that moves one a thread."""
    target.data.copy_from_device_async(source.data, source.nbytes)


def measure_gpu(images: int = 32) -> KernelReport:
    """`measure` on CuPy's current device. Raises what CuPy raises where there is none."""
    import cupy

    from preprocess.kernels.cuda import CupyDevice

    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    return measure(CupyDevice(), EventTimer(), copy_on_gpu, properties["name"].decode(), images)


if __name__ == "__main__":
    sys.stdout.write(measure_gpu().to_json() + "\n")
