"""Fetch one file by HTTP: retries, resumption where it was cut, a bound on its size."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ferroflow.core.addresses import public
from ferroflow.core.errors import DataError, SourceUnavailable

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int | None], None]
"""Told as a file arrives: its name, bytes so far, bytes in all (None: not announced)."""

MAX_BYTES = 4 * 2**30
_TRIES = 4
_TRIES_TO_CONNECT = 2  # off-line is told within seconds
_CHUNK = 2**18


class NotPublished(SourceUnavailable):
    """The server answers, and has no such file (403, 404 or 410)."""


class _TryAgain(Exception):
    """A failure that may pass."""


def fetch(
    address: str,
    target: Path,
    *,
    progress: Progress | None = None,
    max_bytes: int = MAX_BYTES,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Bring the file at ``address`` to ``target``; what a broken transfer left in ``<target>.part`` is continued.

    Raises:
        NotPublished: the server has no such file.
        SourceUnavailable: nobody answers, or the transfer keeps failing.
        DataError: the file is larger than ``max_bytes``.
    """
    import httpx

    target.parent.mkdir(parents=True, exist_ok=True)
    timeout = httpx.Timeout(30, connect=5)
    with httpx.Client(timeout=timeout, follow_redirects=True, headers={"Accept-Encoding": "identity"}) as client:
        for attempt in range(1, _TRIES + 1):
            try:
                _transfer(client, address, target, progress, max_bytes)
                return
            except (httpx.TransportError, _TryAgain) as error:
                offline = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                logger.warning("%s: try %d failed: %s", public(address), attempt, error)
                if attempt >= (_TRIES_TO_CONNECT if offline else _TRIES):
                    raise SourceUnavailable(_unavailable(address, error)) from error
                pause(0.5 * 2**attempt)


def _unavailable(address: str, error: Exception) -> str:
    return (
        f"{public(address)} cannot be had: {error or type(error).__name__}. Two ways out: set FERROFLOW_MIRROR to a "
        f"folder or address that holds the same files, or use the simulator (--simulate) where the pipeline has one."
    )


def _transfer(client: httpx.Client, address: str, target: Path, progress: Progress | None, max_bytes: int) -> None:
    part, tag = target.with_name(target.name + ".part"), target.with_name(target.name + ".etag")
    have = part.stat().st_size if part.exists() and tag.exists() else 0
    # If-Range: a file that changed at the server since then comes whole, never spliced.
    headers = {"Range": f"bytes={have}-", "If-Range": tag.read_text()} if have else {}
    with client.stream("GET", address, headers=headers) as response:
        _judge(response, address, part)
        if response.status_code != 206:
            have = 0
            _remember(response, part, tag)
        total = _announced(response, have)
        if (total or 0) > max_bytes:
            raise DataError(f"{public(address)} has {total:,} bytes, more than the {max_bytes:,} that are allowed.")
        _append(response, part, have, total, target.name, progress, max_bytes)
    if total is not None and part.stat().st_size != total:
        raise _TryAgain(f"{part.stat().st_size:,} of {total:,} bytes arrived")
    part.replace(target)
    tag.unlink(missing_ok=True)


def _judge(response: httpx.Response, address: str, part: Path) -> None:
    status = response.status_code
    if status in (403, 404, 410):
        raise NotPublished(_unavailable(address, OSError(f"the server answers {status}")))
    if status == 416:  # what is here does not belong to what is there: from the beginning
        part.unlink(missing_ok=True)
        raise _TryAgain("the part that was here does not fit")
    if status in (408, 425, 429) or status >= 500:
        raise _TryAgain(f"the server answers {status}")
    if status not in (200, 206):
        raise SourceUnavailable(_unavailable(address, OSError(f"the server answers {status}")))


def _remember(response: httpx.Response, part: Path, tag: Path) -> None:
    """Start a new part; without a strong validator it will not be continued."""
    part.write_bytes(b"")
    validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
    if validator and not validator.startswith("W/"):
        tag.write_text(validator)
    else:
        tag.unlink(missing_ok=True)


def _announced(response: httpx.Response, have: int) -> int | None:
    length = response.headers.get("Content-Length")
    return have + int(length) if length else None


def _append(
    response: httpx.Response,
    part: Path,
    have: int,
    total: int | None,
    name: str,
    progress: Progress | None,
    max_bytes: int,
) -> None:
    with part.open("ab") as file:
        for chunk in response.iter_bytes(_CHUNK):
            file.write(chunk)
            have += len(chunk)
            if have > max_bytes:
                raise DataError(f"{public(str(response.url))} is larger than the {max_bytes:,} bytes that are allowed.")
            if progress is not None:
                progress(name, have, total)
