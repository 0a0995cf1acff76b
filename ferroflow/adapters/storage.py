"""Files that are whole or not there: everything is written under a temporary name and then moved into place.

A process killed at any moment leaves at most a hidden temporary file, never half a table. A record is written after the
files it names, so a record that can be read vouches for them.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import orjson
import polars as pl
from pydantic import BaseModel

from ferroflow.core.fingerprint import file_digest, fingerprint

logger = logging.getLogger(__name__)

AnyRecord = TypeVar("AnyRecord", bound=BaseModel)

_ROW_GROUP = 122_880
_SEAL = "seal"
"""The key of a record's file that holds the fingerprint of all the others: a flipped byte is seen."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; moved onto it at the end of the block, deleted when the block fails.

    The folder is made. The bytes are on the disk before the move, so a power cut cannot leave an empty file either.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield temporary
        _to_disk(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, wholly or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def atomic_parquet(path: Path, frame: pl.DataFrame | pl.LazyFrame) -> None:
    """Write a frame as Parquet (zstd), wholly or not at all; a lazy one is streamed in its own row order."""
    with replacing(path) as temporary:
        if isinstance(frame, pl.LazyFrame):
            frame.sink_parquet(temporary, compression="zstd", compression_level=3, row_group_size=_ROW_GROUP)
        else:
            frame.write_parquet(temporary, compression="zstd", compression_level=3, row_group_size=_ROW_GROUP)


def write_record(path: Path, record: BaseModel) -> None:
    """Write a record as JSON with a seal over its content, wholly or not at all."""
    content = orjson.loads(record.model_dump_json())
    atomic_bytes(path, orjson.dumps({**content, _SEAL: fingerprint(content)}, option=orjson.OPT_INDENT_2))


def parse_record(data: bytes, kind: type[AnyRecord]) -> AnyRecord:
    """The record in the bytes of its file.

    Raises:
        ValueError: they are no such record, or not those that were written.
    """
    return kind.model_validate_json(orjson.dumps(_unsealed(data)))


def seal_problem(path: Path) -> str | None:
    """What is wrong with the file of a record, of whatever kind; None: its bytes are those that were written."""
    try:
        _unsealed(path.read_bytes())
    except (OSError, ValueError) as error:
        return f"is no record that was written here: {error}"
    return None


def _unsealed(data: bytes) -> dict[str, Any]:
    content = orjson.loads(data)
    if not isinstance(content, dict) or content.pop(_SEAL, None) != fingerprint(content):
        raise ValueError("its seal is missing or broken")
    return content


def read_record(path: Path, kind: type[AnyRecord]) -> AnyRecord | None:
    """Read a record; None when there is none, or none of this form (told in the log: it is then made again)."""
    try:
        return parse_record(path.read_bytes(), kind)
    except FileNotFoundError:
        return None
    except ValueError as error:
        logger.warning("%s is no %s and is made again: %s", path, kind.__name__, error)
        return None


def read_table(path: Path) -> pl.DataFrame | None:
    """Read a Parquet file of ours; None when it is missing or damaged (told in the log: it is then made again)."""
    try:
        return pl.read_parquet(path)
    except FileNotFoundError:
        return None
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        logger.warning("%s is damaged and is made again: %s", path, error)
        return None


def is_whole(path: Path, digest: str) -> bool:
    """Whether the file still has its SHA-256; one that has not is told in the log: it is then made again."""
    if path.is_file() and file_digest(path) == digest:
        return True
    logger.warning("%s is missing or damaged and is made again", path)
    return False


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
