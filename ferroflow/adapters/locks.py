"""One process at a time: the only lock of the project, a file that the system lets go of when its holder dies."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one thread of one process at a time into the block.

    The lock is the hidden file ``.<name>.lock`` beside ``path``, which need not exist; its folder is made. Whoever
    holds the lock and asks for it again waits for ever.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("wb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
