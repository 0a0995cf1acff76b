"""A function run in a process of its own: what it gives, its seconds by the clock and of the CPU, its peak memory."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks.memory import peak_mb

_OUT = "BENCHMARK_RESULT "


class Stopwatch:
    """Seconds of the clock and of this process's CPU, within the ``with`` blocks of ``running`` only."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what happens in the block: imports, generated data and comparisons stay outside."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu


def apart(target: str, environment: Mapping[str, str] | None = None, **given: Any) -> dict[str, Any]:
    """Call ``module:function(stopwatch, **given)`` in a fresh process, with these variables beside our own.

    Returns:
        What the function gives (a dict that JSON can hold), with ``wall_s``, ``cpu_s`` and ``peak_mb``.
    """
    command = [sys.executable, "-m", "benchmarks.features.apart", target, json.dumps(given)]
    variables = {**os.environ, "TZ": "UTC", **(environment or {})}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=3600, env=variables)
    found = [line for line in done.stdout.splitlines() if line.startswith(_OUT)]
    if done.returncode or not found:
        raise RuntimeError(f"{target} with {given} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    result: dict[str, Any] = json.loads(found[-1].removeprefix(_OUT))
    return result


def _main() -> None:
    module, _, name = sys.argv[1].partition(":")
    function: Callable[..., dict[str, Any]] = getattr(importlib.import_module(module), name)
    watch = Stopwatch()
    result = function(watch, **json.loads(sys.argv[2]))
    measured = {"wall_s": round(watch.wall, 4), "cpu_s": round(watch.cpu, 4), "peak_mb": peak_mb()}
    print(_OUT + json.dumps(result | measured), flush=True)
    sys.stderr.flush()
    os._exit(0)  # DuckDB's bindings write pages about what they leak when the interpreter is taken down


if __name__ == "__main__":
    _main()
