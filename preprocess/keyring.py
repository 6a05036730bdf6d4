"""The key of `--identifiers hash`, and which dataset it belongs to.

In:  OUT, the result config, --key-file.
Out: Pseudonyms made with the dataset's own key, or a refusal: names made with two keys in one dataset would
     put one patient into two folds.

The dataset keeps a check value of its key, in the manifest and, while it is unfinished, in OUT/.bcd.
"""

from __future__ import annotations

import contextlib
import json

from preprocess.atomic import aborting_on_io_error
from preprocess.config import Identifiers, ResultConfig
from preprocess.identifiers import Pseudonyms, refuse_inside
from preprocess.manifest import MANIFEST
from preprocess.output import STATE, key_file_of, write_json
from preprocess.places import Place, read_bytes

_KEY_CHECK = "key.json"


def pseudonyms_of(
    out: Place, config: ResultConfig, given: str | None, *, reading: bool = False
) -> Pseudonyms:
    """Pseudonyms for OUT; a key is made only for a dataset that has none, and never where only `reading`.

    Raises:
        UsageError: the key is missing, malformed, another dataset's, or inside OUT.
        RunAborted: it, or OUT, cannot be read or written.
    """
    if config.identifiers is Identifiers.KEEP:
        return Pseudonyms()
    key_file = key_file_of(out, given)
    refuse_inside(out, key_file)
    with aborting_on_io_error(out):
        check = _stored_check(out)
    pseudonyms = Pseudonyms.open(config.identifiers, key_file, check)
    if not reading:  # the manifest goes while a complete dataset is added to
        write_json(out / STATE / _KEY_CHECK, {"check": pseudonyms.check()})
    return pseudonyms


def _stored_check(out: Place) -> str | None:
    """The check value of the key that OUT was made with; None if OUT is new."""
    for path, name in ((out / MANIFEST, "identifiers_key_check"), (out / STATE / _KEY_CHECK, "check")):
        with contextlib.suppress(
            FileNotFoundError, NotADirectoryError, ValueError, TypeError, AttributeError
        ):
            check = json.loads(read_bytes(path)).get(name)
            if isinstance(check, str):
                return check
    return None
