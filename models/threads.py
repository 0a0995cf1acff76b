"""How many threads training takes."""

from __future__ import annotations

import os


def count() -> int:
    """Half the cores, one at least.

    Trees and small networks wait for each other after every few microseconds of work. As soon as another process
    (a database, a server, a test) takes one of the cores, two threads on two cores were five to nine times slower
    than one.
    """
    return max(1, (os.cpu_count() or 1) // 2)
