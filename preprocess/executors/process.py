"""One worker process as its driver sees it: a connection, and a way to end it.

In:  the memory limit (0: none), variables for its environment.
Out: a process that inherits nothing but the connection: not the lock on OUT, not the terminal (neither Ctrl-C
     nor what a native library prints gets through), not `__main__` (scripts need no guard).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

_BOOT = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from preprocess.executors.worker import main
main(*map(int, sys.argv[2:]))
"""
_REAP_S = 10.0


class Process:
    """A worker process. `stop` ends it; it ends by itself when the driver does."""

    def __init__(self, memory_bytes: int, environment: Mapping[str, str] | None = None) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            numbers = (theirs.fileno(), os.getpid(), memory_bytes)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path), *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **(environment or {})},
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        self.pid = self._process.pid
        self.connection: Connection[Any, Any] = Connection(ours.detach())

    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Begin to end it."""
        self._process.kill()

    def stop(self, grace_s: float = 0.0) -> int | None:
        """Kill it unless it ends by itself; its exit status, None if even SIGKILL fails (a dead disk)."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait(_REAP_S)
        self.connection.close()
        return self._process.returncode
