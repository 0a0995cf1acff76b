"""How much memory a process took at most."""

from __future__ import annotations

import resource
from pathlib import Path


def peak_mb() -> int:
    """This process's own peak of resident memory; ``ru_maxrss`` begins with that of its parent on Linux."""
    try:
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) // 1024
    except FileNotFoundError:  # no Linux: bytes there
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**20
