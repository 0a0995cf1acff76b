"""The thread that writes predictions down: requests that wait at the same time share one transaction.

A request is answered after its rows are on the disk (one ``fsync`` a transaction, however many requests are in it).
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ferroflow.adapters.predictions import PredictionLog

logger = logging.getLogger(__name__)

_MOST = 256  # requests in one transaction


class JournalFull(Exception):
    """More waits to be written than can be held; the client should come again."""


@dataclass
class _Entry:
    pipeline: str
    rows: list[dict[str, Any]]
    done: asyncio.Future[None]
    loop: asyncio.AbstractEventLoop


class Journal:
    """Durable writing of predictions and labels, off the event loop.

    Args:
        path: the log's file of a pipeline.
        capacity: how many requests may wait to be written.
    """

    def __init__(self, path: Callable[[str], Path], capacity: int = 2_000) -> None:
        self._path = path
        self._logs: dict[str, PredictionLog] = {}
        self._queue: queue.Queue[_Entry | None] = queue.Queue(capacity)
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, then close the files."""
        self._queue.put(None)
        self._thread.join(timeout=30)
        for log in self._logs.values():
            log.close()

    async def write(self, pipeline: str, rows: list[dict[str, Any]]) -> None:
        """Return when the rows are on the disk.

        Raises:
            JournalFull: too many requests wait.
            OSError, sqlite3.Error: they could not be written, and none of them is in the log.
        """
        loop = asyncio.get_running_loop()
        entry = _Entry(pipeline, rows, loop.create_future(), loop)
        try:
            self._queue.put_nowait(entry)
        except queue.Full:
            raise JournalFull from None
        await entry.done

    def log(self, pipeline: str) -> PredictionLog:
        """The log of one pipeline; it takes care of its threads itself."""
        return self._logs.setdefault(pipeline, PredictionLog(self._path(pipeline)))

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            entries, ended = [first], False
            while len(entries) < _MOST and not ended:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    ended = True
                else:
                    entries.append(following)
            for pipeline in {entry.pipeline for entry in entries}:
                self._write([entry for entry in entries if entry.pipeline == pipeline])
            if ended:
                return

    def _write(self, entries: list[_Entry]) -> None:
        error: Exception | None = None
        try:
            self.log(entries[0].pipeline).append([row for entry in entries for row in entry.rows])
        except (OSError, sqlite3.Error) as failure:
            logger.error("predictions of %s cannot be written: %s", entries[0].pipeline, failure)
            error = failure
        for entry in entries:
            entry.loop.call_soon_threadsafe(_settle, entry.done, error)


def _settle(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():  # the request was given up meanwhile
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
