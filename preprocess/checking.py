"""`bcd-prep verify --source`: the dataset against its inputs, decoded again by an independent decoder.

In:  a finished dataset, the inputs it was made from, how many of them to take.
Out: the largest difference of any prepared pixel (expected: 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from preprocess import pipeline
from preprocess.config import Read, ResultConfig
from preprocess.discover import discover
from preprocess.errors import UsageError
from preprocess.keyring import pseudonyms_of
from preprocess.manifest import read_manifest
from preprocess.oracle import OracleDecoder
from preprocess.places import Place
from preprocess.records import Prepared, SourceFile
from preprocess.verify import SourceReport, verify_source

_ORACLES = ("gdcm", "pylibjpeg", "openjpeg")
"""Top-level modules of the `oracle` extra."""


def compare_with_source(
    out: Place, inputs: Sequence[str], sample: int, seed: int, key_file: str | None = None
) -> SourceReport:
    """Decode and render `sample` random inputs again with pydicom's decoders, and compare.

    Raises:
        UsageError: inputs cannot be found, or the key of a hashed dataset or the `oracle` extra is not there.
        DatasetDamaged: the dataset cannot be read.
    """
    missing = [name for name in _ORACLES if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"--source needs independent decoders: pip install '.[oracle]' ({missing[0]} is missing)"
        )
    stored = ResultConfig.model_validate(read_manifest(out).config)
    config = stored.model_copy(update={"read": Read.ALL})  # pydicom's decoders want the whole file
    pseudonyms = pseudonyms_of(out, config, key_file, reading=True)

    def prepare(source: SourceFile) -> Prepared:
        trace = pipeline.Trace()
        pipeline.advance(trace, source, config, OracleDecoder())
        assert trace.prepared is not None
        return trace.prepared

    return verify_source(out, discover(inputs).sources, prepare, sample, seed, pseudonyms)
