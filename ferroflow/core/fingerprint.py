"""Fingerprints: the same content has the same name, everywhere and for ever."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson

_LENGTH = 16


def fingerprint(*parts: Any) -> str:
    """Name JSON-like content by 16 hexadecimal digits of its SHA-256; the order of keys does not matter."""
    data = orjson.dumps(parts, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=str)
    return hashlib.sha256(data).hexdigest()[:_LENGTH]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
