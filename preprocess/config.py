"""PrepConfig: what decides the result (hashed: the resume key) and how it is executed (never hashed).

In:  command line > environment (BCD_PREP_*) > --config file.yaml > defaults, merged by cli.py.
Out: frozen, validated values. `ResultConfig.sha256()` is the resume key of docs/dataset.md.
"""

from __future__ import annotations

import hashlib
import json
import os
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

SCHEMA_VERSION = 1
"""Version of the manifest, the columns and the fold rule. Raised when one of them changes meaning."""


class Format(StrEnum):
    """Kinds of shard files."""

    TFRECORD = "tfrecord"
    PARQUET = "parquet"
    PNG = "png"


class Encoding(StrEnum):
    """How pixels are stored inside TFRecord and Parquet."""

    PNG = "png"
    RAW = "raw"


class WindowPolicy(StrEnum):
    """Which VOI transformation to apply."""

    HEADER = "header"
    MINMAX = "minmax"
    PERCENTILE = "percentile"
    FULL = "full"


class VoiPreference(StrEnum):
    """Which one wins where a header has both windows and a VOI LUT Sequence."""

    WINDOW = "window"
    LUT = "lut"


class MissingWindow(StrEnum):
    """What to do where --window header finds nothing usable (or for FOR PROCESSING images)."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    FULL = "full"
    REJECT = "reject"


class ProcessingPolicy(StrEnum):
    """What to do with FOR PROCESSING images, whose windows, if any, were not made for display."""

    HEADER = "header"
    MINMAX = "minmax"
    PERCENTILE = "percentile"
    REJECT = "reject"


class RoiPolicy(StrEnum):
    """What to crop to."""

    BREAST = "breast"
    NONE = "none"


class Orientation(StrEnum):
    """Which side the chest wall is brought to."""

    LEFT = "left"
    KEEP = "keep"


class Read(StrEnum):
    """How much of an input file is read."""

    ALL = "all"
    NEEDED = "needed"


class Frames(StrEnum):
    """What to take of a multi-frame object."""

    SINGLE = "single"
    FIRST = "first"
    MIDDLE = "middle"


class BitsOverflow(StrEnum):
    """What to do with pixels above BitsStored."""

    CLAMP = "clamp"
    REJECT = "reject"


class Background(StrEnum):
    """What to do with pixels outside the breast."""

    KEEP = "keep"
    BLANK = "blank"


class BurnedIn(StrEnum):
    """What to do with images that declare burned-in annotation (0028,0301)."""

    KEEP = "keep"
    REJECT = "reject"


class Identifiers(StrEnum):
    """Whether ids, UIDs and sources are kept or replaced by keyed hashes."""

    KEEP = "keep"
    HASH = "hash"


class ExecutorName(StrEnum):
    """Where tasks run."""

    LOCAL = "local"


class LogFormat(StrEnum):
    """How progress is told."""

    TEXT = "text"
    JSON = "json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_enum_values=False, allow_inf_nan=False)


class ResultConfig(_Frozen):
    """Everything that decides bytes. Two runs with equal ResultConfig and input give equal shards."""

    formats: tuple[Format, ...] = Field(
        (Format.TFRECORD,), description="Kinds of shard files; may be given several times."
    )
    height: int = Field(1024, ge=16, le=8192, description="Rows of a prepared image.")
    width: int = Field(512, ge=16, le=8192, description="Columns of a prepared image.")
    bits: int = Field(16, description="Bits per prepared pixel: 8 or 16.")
    encoding: Encoding = Field(Encoding.PNG, description="Pixel encoding inside TFRecord and Parquet.")
    window: WindowPolicy = Field(WindowPolicy.HEADER, description="VOI transformation to apply.")
    voi: VoiPreference = Field(
        VoiPreference.WINDOW, description="What wins where a file has LUT and windows."
    )
    voi_index: int = Field(
        0, ge=0, description="Which of several windows or LUTs (from 0; the last if fewer)."
    )
    percentile_low: float = Field(0.005, ge=0, lt=1, description="Lower rank of --window percentile.")
    percentile_high: float = Field(0.995, gt=0, le=1, description="Upper rank of --window percentile.")
    missing_window: MissingWindow = Field(
        MissingWindow.MINMAX, description="Where the header has no usable window or LUT."
    )
    for_processing: ProcessingPolicy = Field(
        ProcessingPolicy.MINMAX, description="VOI of FOR PROCESSING images."
    )
    roi: RoiPolicy = Field(RoiPolicy.BREAST, description="Crop to the breast, or keep the whole frame.")
    roi_detector: str | None = Field(
        None, description="module:function of a breast detector used instead of the built-in one."
    )
    margin_mm: float = Field(5.0, ge=0, le=100, description="Margin round the breast where spacing is known.")
    margin_px: int = Field(64, ge=0, le=2000, description="Margin in full-size pixels where it is not.")
    background: Background = Field(
        Background.KEEP, description="Keep what lies beside the breast, or replace it by fill."
    )
    burned_in: BurnedIn = Field(
        BurnedIn.KEEP, description="Images that declare burned-in annotation (BurnedInAnnotation YES)."
    )
    orient: Orientation = Field(Orientation.LEFT, description="Side to bring the chest wall to.")
    decode: str = Field(
        "auto", description="auto, full, or a wavelet level by number (the deepest there is, if fewer)."
    )
    decode_margin: float = Field(
        1.25, ge=1.0, le=4.0, description="auto: level's box must be this many times the output's."
    )
    read: Read = Field(
        Read.ALL, description="Read whole files, or of JPEG 2000 no more than the wavelet level needs."
    )
    allow_inexact_gpu: bool = Field(
        False, description="With --gpu, decode lossy JPEG 2000 there too: pixels may differ by 1."
    )
    folds: int = Field(5, ge=1, le=100, description="Number of patient-grouped folds.")
    seed: int = Field(0, ge=0, description="Seed of the fold rule.")
    shard_images: int = Field(
        128, ge=1, le=100_000, description="Images per shard, at most (patients whole)."
    )
    identifiers: Identifiers = Field(Identifiers.KEEP, description="Keep ids, or replace by keyed hashes.")
    modality: str = Field("any", description="any, or a Modality such as MG (files without one pass).")
    frames: Frames = Field(Frames.SINGLE, description="What to take of multi-frame objects.")
    bits_overflow: BitsOverflow = Field(BitsOverflow.CLAMP, description="Pixels above BitsStored.")
    limit: int | None = Field(None, ge=1, description="Take only the first N inputs (in source order).")
    max_file_bytes: int = Field(1_000_000_000, ge=1, description="Larger files are rejected unread.")
    max_pixels: int = Field(100_000_000, ge=1, description="Larger images are rejected undecoded.")
    max_inflate_bytes: int = Field(1_000_000_000, ge=1, description="Deflated data sets may grow to this.")
    max_inflate_ratio: int = Field(200, ge=1, description="… and by this factor.")
    max_sequence_depth: int = Field(32, ge=1, description="Deeper nesting is rejected.")

    @field_validator("formats")
    @classmethod
    def _formats(cls, value: tuple[Format, ...]) -> tuple[Format, ...]:
        if not value:
            raise ValueError("at least one format is needed")
        return tuple(sorted(set(value), key=list(Format).index))

    @field_validator("bits")
    @classmethod
    def _bits(cls, value: int) -> int:
        if value not in (8, 16):
            raise ValueError("must be 8 or 16")
        return value

    @model_validator(mode="after")
    def _percentiles(self) -> Self:
        if self.percentile_low >= self.percentile_high:
            raise ValueError("--percentile-low must be below --percentile-high")
        return self

    @property
    def decodes_fully(self) -> bool:
        """Whether level 0 is asked for by name."""
        return self.decode in ("full", "0")

    @field_validator("decode", mode="before")
    @classmethod
    def _decode_of_number(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("decode")
    @classmethod
    def _decode(cls, value: str) -> str:
        if value not in ("auto", "full") and not (value.isascii() and value.isdigit() and int(value) <= 32):
            raise ValueError("must be auto, full or a level from 0 to 32")
        return value

    def as_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces. The hashed form."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def sha256(self) -> str:
        """The resume key: hex sha256 over schema version and canonical JSON."""
        return hashlib.sha256(f"{SCHEMA_VERSION}\n{self.as_json()}".encode()).hexdigest()

    def differences(self, other: dict[str, Any]) -> tuple[str, ...]:
        """Names and values of fields in which a stored config (as JSON) differs from this one."""
        mine = self.model_dump(mode="json")
        names = sorted(mine.keys() | other.keys())
        return tuple(
            f"{name}: {other.get(name)!r} there, {mine.get(name)!r} asked for"
            for name in names
            if mine.get(name) != other.get(name)
        )


class ExecutionConfig(_Frozen):
    """How a run is carried out. Never changes a byte of shards or manifest."""

    gpu: bool = Field(False, description="Decode and render on GPUs.")
    devices: str = Field("all", description="With --gpu: all, or numbers of GPUs such as 0,1.")
    require_gpu: bool = Field(
        False, description="With --gpu: abort rather than give a failed GPU's work to the CPU."
    )
    gpu_batch: int = Field(0, ge=0, le=1024, description="Images decoded together on a GPU; 0: as fits.")
    gpu_threads: int = Field(
        0, ge=0, le=64, description="Decoder states and streams of a GPU; 0: by cores and memory."
    )
    workers: int = Field(0, ge=0, description="Worker processes; 0: one per core.")
    executor: ExecutorName = Field(ExecutorName.LOCAL, description="Where tasks run.")
    max_rejected: str = Field("5%", description="Exit 3 above this many rejects: a count or a percentage.")
    image_timeout_s: float = Field(120.0, gt=0, description="Time one image may take.")
    worker_memory: int = Field(
        4_000_000_000,
        ge=500_000_000,
        description="Address space one worker may take beyond its start, bytes.",
    )
    overwrite: bool = Field(False, description="Replace a dataset made with another config.")
    retry: bool = Field(
        False, description="Try again what took too long or too much memory, or crashed, in an earlier run."
    )
    dry_run: bool = Field(False, description="Plan and report, write nothing.")
    log_format: LogFormat = Field(LogFormat.TEXT, description="text or json (one object a line).")
    key_file: str | None = Field(None, description="Key of --identifiers hash (default: OUT.key).")

    def worker_count(self) -> int:
        """Worker processes to start: `workers`, or the cores this process may use."""
        return self.workers or len(os.sched_getaffinity(0))

    def device_numbers(self, count: int) -> tuple[int, ...]:
        """Which of `count` GPUs to use. Raises ValueError where one of `devices` is not there."""
        if self.devices == "all":
            return tuple(range(count))
        numbers = tuple(sorted({int(word) for word in self.devices.split(",")}))
        if absent := [number for number in numbers if number >= count]:
            raise ValueError(f"GPU {absent[0]} is not among the {count} that are visible")
        return numbers

    def rejects_allowed(self, counted: int) -> int:
        """How many of `counted` inputs may be rejected before exit code 3."""
        text = self.max_rejected.strip()
        if text.endswith("%"):
            return int(counted * float(text[:-1]) / 100)
        return int(text)

    @field_validator("devices", mode="before")
    @classmethod
    def _devices(cls, value: object) -> str:
        text = str(value).replace(" ", "")
        if text != "all" and not all(word.isascii() and word.isdigit() for word in text.split(",")):
            raise ValueError("must be all, or numbers separated by commas, such as 0,1")
        return text

    @field_validator("max_rejected", mode="before")
    @classmethod
    def _max_rejected(cls, value: object) -> str:
        text = str(value).strip()
        percentage = text.endswith("%")
        try:
            number = float(text[:-1]) if percentage else int(text)
        except ValueError:
            number = -1
        if not 0 <= number <= (100 if percentage else number):
            raise ValueError("must be a count, or a percentage from 0% to 100%")
        return text


class PrepConfig(_Frozen):
    """The whole config of bcd-prep run."""

    result: ResultConfig = ResultConfig()
    execution: ExecutionConfig = ExecutionConfig()
