"""Whole runs, CPU against GPU: the same bytes, and how fast. Checks (b) and the end-to-end half of (e).

In:  a Context.
Out: figures; `ok` where every promised file is the same.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from unittest import mock

import pydicom
from pydicom.uid import UID

from bench.gpu.context import Context, Figures
from dali_pipelines.routes import Where, route
from preprocess import gpus, runner
from preprocess.config import ExecutionConfig, Format, PrepConfig, ResultConfig
from preprocess.planning import RunRequest
from preprocess.progress import Silent

DECODES = ("auto", "full")
JPEG_2000, MIX = "JPEG 2000", "mix"
_SETS = ((JPEG_2000, ("auto", "full", "2"), 768), (MIX, ("auto",), 512))
"""Names, what is decoded, and how many files: several shards of them."""
_SHARD_IMAGES = 256
"""At the end of a shard a GPU waits for the last pictures to be written; larger shards hide that better."""
_UNPROMISED = {"run.json", "report.html", "dataset_card.md", "instances.parquet"}


def shards(context: Context) -> bool:
    """(b) Datasets of phantoms and real files, `--decode auto` and `full`, each on CPU and GPU."""
    inputs = [context.request.inputs / "small", *([context.request.real] if context.request.real else [])]
    same = True
    for decode in DECODES:
        config = ResultConfig(height=256, width=128, decode=decode, shard_images=16,
                              formats=(Format.TFRECORD, Format.PARQUET, Format.PNG))  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            cpu, gpu = Path(folder) / "cpu", Path(folder) / "gpu"
            _run(context, inputs, cpu, config, gpu=False)
            figures = _run(context, inputs, gpu, config, gpu=True)
            mine, truth = _promised(gpu), _promised(cpu)
        differing = sorted(name for name in mine.keys() | truth.keys() if mine.get(name) != truth.get(name))
        context.figures[decode] = {**figures, "files": len(truth), "differing": [*differing[:20]]}
        by_device = figures["shards_by_device"]
        assert isinstance(by_device, dict)
        same &= not differing and len(truth) > 3 and not by_device.get("cpu")
    return same


def end_to_end(context: Context) -> bool:
    """(e) Images a second of `run --gpu` at 1024x512, full-size files: those that a GPU decodes, and all."""
    for name, decodes, wanted in _SETS:
        inputs = context.request.inputs / name.replace(" ", "-")
        if not inputs.exists():
            _copies(context, inputs, only_gpu=name == JPEG_2000, wanted=wanted)
        for decode in decodes:
            with tempfile.TemporaryDirectory() as folder:
                config = ResultConfig(decode=decode, shard_images=_SHARD_IMAGES)
                figures = _run(context, [inputs], Path(folder) / "out", config, gpu=True)
            context.figures[f"{name}, --decode {decode}"] = figures
    return True


class _Steady(Silent):
    """When shards were finished, so that starting a worker is not taken for its speed."""

    def __init__(self) -> None:
        self._phase = ""
        self._steps: list[tuple[float, int]] = []

    def phase(self, name: str, total: int) -> None:
        """Note which one it is."""
        self._phase = name

    def step(self, count: int, rejected: int = 0) -> None:
        """Note a shard's end."""
        if self._phase == "prepare":
            self._steps.append((time.perf_counter(), count))

    def images_per_second(self) -> float | None:
        """From the first shard's end to the last one's; None where there are not two."""
        if len(self._steps) < 2:
            return None
        elapsed = self._steps[-1][0] - self._steps[0][0]
        return round(sum(count for _, count in self._steps[1:]) / elapsed, 2) if elapsed else None


def _copies(context: Context, folder: Path, *, only_gpu: bool, wanted: int) -> None:
    """Full-size phantoms again and again, under other UIDs and patients, for a rate that is steady."""
    sources = []
    for image in context.full:
        if only_gpu and route(image, 0).where is Where.CPU:
            continue
        dataset, whole = pydicom.dcmread(image.source.path), io.BytesIO()
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(_uid(0))
        dataset.PatientID = _patient(0)
        dataset.save_as(whole)
        sources.append(whole.getvalue())

    def write(number: int) -> None:
        target = folder / "train_images" / f"{10000 + number}" / f"{number}.dcm"
        target.parent.mkdir(parents=True)
        data = sources[number % len(sources)].replace(_uid(0).encode(), _uid(number + 1).encode())
        target.write_bytes(data.replace(_patient(0).encode(), _patient(number // 4 + 1).encode()))

    count = max(len(sources), int(wanted * min(1.0, context.request.seconds)))
    with ThreadPoolExecutor(context.request.cores) as pool:
        list(pool.map(write, range(count)))


# Both of a fixed length, so that one can be replaced by another.


def _uid(number: int) -> str:
    return f"1.2.3.4.1{number:08}"


def _patient(number: int) -> str:
    return f"copied-{number:09}"


def _run(context: Context, inputs: list[Path], out: Path, config: ResultConfig, *, gpu: bool) -> Figures:
    execution = ExecutionConfig(gpu=gpu, workers=context.request.cores, max_rejected="100%")
    request = RunRequest(
        tuple(map(str, inputs)), out, config=PrepConfig(result=config, execution=execution), layout="pacs"
    )
    begin, steady = time.perf_counter(), _Steady()
    with _devices(context, execution):
        summary = runner.run(request, steady)
    document = json.loads((out / "run.json").read_text(encoding="utf-8"))
    return {
        "images": summary.prepared,
        "rejected": summary.rejected,
        "seconds": round(time.perf_counter() - begin, 2),
        "images_per_second": steady.images_per_second(),
        "stages": document["stages"],
        "shards_by_device": document["supervision"]["shards_by_device"],
    }


def _devices(context: Context, execution: ExecutionConfig) -> AbstractContextManager[object]:
    """Where the engines are not NVIDIA's, a run gets a device with those instead of looking for GPUs."""
    if context.request.engines == gpus.ENGINES:
        return nullcontext()
    one = gpus.device(0, 1, execution, context.request.engines)
    return mock.patch.object(runner, "devices_of", lambda asked: (one,) if asked.gpu else ())


def _promised(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file() and path.name not in _UNPROMISED
    }
