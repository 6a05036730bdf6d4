"""`bcd-prep verify --source`: the dataset against its inputs, decoded again by an independent decoder.

In:  a finished dataset, the inputs it was made from, how many of them to take.
Out: the largest difference of any prepared pixel (expected: 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from preprocess import pipeline
from preprocess.config import ResultConfig
from preprocess.discover import discover
from preprocess.keyring import pseudonyms_of
from preprocess.manifest import read_manifest
from preprocess.oracle import OracleDecoder
from preprocess.records import Prepared, SourceFile
from preprocess.verify import SourceReport, verify_source


def compare_with_source(
    out: Path, inputs: Sequence[str], sample: int, seed: int, key_file: str | None = None
) -> SourceReport:
    """Decode and render `sample` random inputs again with pydicom's decoders, and compare.

    Raises:
        UsageError: inputs cannot be found, or the key of a hashed dataset is not there.
        DatasetDamaged: the dataset cannot be read.
    """
    config = ResultConfig.model_validate(read_manifest(out).config)
    pseudonyms = pseudonyms_of(out, config, key_file, reading=True)

    def prepare(source: SourceFile) -> Prepared:
        trace = pipeline.Trace()
        pipeline.advance(trace, source, config, OracleDecoder())
        assert trace.prepared is not None
        return trace.prepared

    return verify_source(out, discover(inputs).sources, prepare, sample, seed, pseudonyms)
