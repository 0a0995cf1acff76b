"""Open a text file as it is, or unpacked while it is read: gzip and zstd are known by their first bytes.

A stream that ends too early, fails its checksum or is followed by anything else is an error: what was complete in it
cannot be told from what is missing. So is one that unpacks to more than any honest file does.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

MAX_UNPACKED = 64 << 30
"""Bytes that a compressed file may unpack to."""
MAX_RATIO = 1_000
"""How many times its size it may unpack to, once that is more than ``FREE_UNPACKED``."""
FREE_UNPACKED = 1 << 30
"""Bytes that a compressed file of any size may unpack to."""

_BUFFER = 1 << 20
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file's text as bytes, to be read from front to back.

    Raises:
        OSError: while reading: the compressed stream is damaged, cut off, or unpacks to too much.
    """
    with path.open("rb") as file:
        head = file.read(4)
        codec = next((codec for magic, codec in _MAGIC.items() if head.startswith(magic)), None)
        if codec is None:
            file.seek(0)
            yield file
            return
    import pyarrow as pa

    with pa.OSFile(str(path)) as packed, pa.CompressedInputStream(packed, codec) as stream:
        yield io.BufferedReader(_Bounded(stream, path.stat().st_size), _BUFFER)


class _Bounded(io.RawIOBase):
    """A compressed stream that refuses to unpack without end."""

    def __init__(self, stream: Any, size: int) -> None:
        self._stream = stream
        self._most = min(MAX_UNPACKED, max(FREE_UNPACKED, MAX_RATIO * size))
        self._unpacked = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._unpacked += len(data)
        if self._unpacked > self._most:
            raise OSError(f"it unpacks to more than {self._most:,} bytes")
        buffer[: len(data)] = data
        return len(data)
