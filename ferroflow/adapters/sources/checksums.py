"""``downloads/checksums.json``: the SHA-256 of every source file, kept when it was first seen."""

from __future__ import annotations

from pathlib import Path

import orjson

from ferroflow.adapters.locks import locked
from ferroflow.adapters.storage import atomic_bytes
from ferroflow.core.errors import DataError

FILE = "checksums.json"


def recorded(downloads: Path) -> dict[str, dict[str, str]]:
    """All entries: a file's key → ``sha256`` and ``address``."""
    try:
        entries: dict[str, dict[str, str]] = orjson.loads((downloads / FILE).read_bytes())
    except FileNotFoundError:
        return {}
    except orjson.JSONDecodeError as error:
        raise DataError(f"{downloads / FILE} cannot be read: {error}. Remove it to record all files anew.") from error
    return entries


def check(downloads: Path, key: str, sha256: str, address: str) -> None:
    """Record a file that is seen for the first time; compare one that is known.

    Raises:
        DataError: the file is known with another checksum.
    """
    with locked(downloads / FILE):
        entries = recorded(downloads)
        known = entries.get(key)
        if known is None:
            entries[key] = {"sha256": sha256, "address": address}
            atomic_bytes(downloads / FILE, orjson.dumps(entries, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
        elif known["sha256"] != sha256:
            raise DataError(
                f"{address} has SHA-256 {sha256}, but {known['sha256']} was recorded when it was first read. If it was "
                f"changed on purpose, remove the entry {key!r} from {downloads / FILE} and run again."
            )
