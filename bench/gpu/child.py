"""One check in a process of its own: `python -m bench.gpu.child NAME REQUEST RESULT`.

In:  the check's name, a Request as JSON, the file to write.
Out: {"ok": …, figures}; written again and again, so that what was found outlives a crash or a time limit.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
import time
from pathlib import Path

from bench.gpu.checks import named
from bench.gpu.context import Context, Figures, Request

_EVERY_S = 1.0


def main(name: str, request: str, result: str) -> None:
    """Run a check. What it raises is a figure, too: its process is all that it may cost."""
    fields = json.loads(request)
    fields |= {key: fields[key] and Path(fields[key]) for key in ("inputs", "real")}
    context, path = Context(Request(**fields)), Path(result)
    ended = threading.Event()
    writer = threading.Thread(target=_keep_writing, args=(context, path, ended), daemon=True)
    writer.start()
    begin = time.perf_counter()
    last: Figures
    try:
        last = {"ok": named(name).work(context)}
    except BaseException as error:  # noqa: BLE001 - the boundary of a check
        last = {"ok": False, "error": f"{type(error).__name__}: {error}"[:2000]}
    last["seconds"] = round(time.perf_counter() - begin, 2)
    ended.set()
    writer.join()
    _write(path, {**context.figures, **last})
    sys.exit(0 if last["ok"] else 1)


def _keep_writing(context: Context, path: Path, ended: threading.Event) -> None:
    while not ended.wait(_EVERY_S):
        _write(path, {**context.figures, "ok": False, "error": "did not end"})


def _write(path: Path, figures: Figures) -> None:
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(figures), encoding="utf-8")
    aside.replace(path)


def as_json(request: Request) -> str:
    """A Request as `main` takes it."""
    fields = dataclasses.asdict(request)
    return json.dumps(
        {key: str(value) if isinstance(value, Path) else value for key, value in fields.items()}
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
