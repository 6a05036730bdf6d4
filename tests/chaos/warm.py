"""Runs without the work that touches no file of OUT: planned, decoded and drawn once, then remembered.

A sweep that fails every call of a run starts it thousands of times. What is remembered are values of
functions that touch nothing in OUT; `test_io_faults` compares the calls of a warm run with a cold one's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from preprocess import card, pipeline, report, report_images, runner, thumbnails
from preprocess.config import ResultConfig
from preprocess.executors.base import Executor
from preprocess.places import plain_name
from preprocess.planning import Plan, RunRequest, make_plan
from preprocess.progress import Reporter
from preprocess.records import SourceFile
from preprocess.report_data import Dataset, RunFacts


class Warm:
    """What earlier runs of one scene found out."""

    def __init__(self) -> None:
        self._plan: Plan | None = None
        self._traces: dict[SourceFile, pipeline.Trace] = {}
        self._pages: dict[bytes, tuple[str, pd.DataFrame | None]] = {}
        self._cards: dict[bytes, str] = {}
        self._encoded: dict[tuple[Any, ...], bytes] = {}

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put the remembering functions in the places of the real ones."""
        patch.setattr(runner, "make_plan", self._make_plan)
        patch.setattr(pipeline, "steps", functools.partial(self._steps, pipeline.steps))
        patch.setattr(report, "render_page", functools.partial(self._render, report.render_page))
        patch.setattr(card, "card_markdown", functools.partial(self._card, card.card_markdown))
        encode = functools.partial(self._encode, thumbnails.encode)
        patch.setattr(thumbnails, "encode", encode)
        patch.setattr(report_images, "encode", encode)
        patch.setattr(runner, "_version", functools.cache(runner._version))

    def _make_plan(self, request: RunRequest, executor: Executor, reporter: Reporter) -> Plan:
        if self._plan is None:
            self._plan = make_plan(request, executor, reporter)
        return self._plan

    def _steps(
        self, real: Callable[..., pipeline.Trace], source: SourceFile, config: ResultConfig, decoder: Any
    ) -> pipeline.Trace:
        if source not in self._traces:
            self._traces[source] = real(source, config, decoder)
        return self._traces[source]

    def _render(
        self, real: Callable[..., str], dataset: Dataset, originals: Mapping[str, Any], run: RunFacts | None
    ) -> str:
        """The page as it was drawn first; the pictures for it are read from OUT again, as every run does."""
        key = dataset.manifest.to_bytes() + repr(sorted(originals)).encode()
        if key in self._pages:
            page, chosen = self._pages[key]
            plain_name(dataset.out)
            if chosen is not None:
                report.prepared_pictures(dataset, chosen)
            return page
        asked: list[pd.DataFrame] = []
        with pytest.MonkeyPatch.context() as patch:
            pictures = report.prepared_pictures
            patch.setattr(
                report, "prepared_pictures", lambda of, rows: asked.append(rows) or pictures(of, rows)
            )
            page = real(dataset, originals, run)
        self._pages[key] = page, asked[-1] if asked else None
        return page

    def _card(self, real: Callable[..., str], dataset: Dataset) -> str:
        key = dataset.manifest.to_bytes()
        if key not in self._cards:
            self._cards[key] = real(dataset)
        else:
            plain_name(dataset.out), plain_name(dataset.out)
        return self._cards[key]

    def _encode(self, real: Callable[..., bytes], gray: np.ndarray) -> bytes:
        key = (gray.shape, gray.tobytes())
        if key not in self._encoded:
            self._encoded[key] = real(gray)
        return self._encoded[key]
