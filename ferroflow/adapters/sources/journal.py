"""The journal of an incremental source: its batches, numbered from 1, each one part.

A batch's file is written first, read back, and only then vouched for by its record: the record *is* the move of the
watermark. A process killed in between leaves a file without a record, which the next run overwrites.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Literal

import polars as pl

from ferroflow.adapters.home import Home
from ferroflow.adapters.sources.raw_parquet import write_raw
from ferroflow.adapters.storage import is_whole, parse_record, read_record, replacing, write_record
from ferroflow.core.errors import DataError, UnreadableFile
from ferroflow.core.fingerprint import file_digest, fingerprint
from ferroflow.core.records import Part
from ferroflow.core.validation import ROW

logger = logging.getLogger(__name__)

_WRITER = 1  # raised when the same rows are to be kept differently


@dataclass(frozen=True)
class Journal:
    """The batches of one table or stream of a pipeline.

    ``identity`` tells it from others (address as the description writes it, without a password; what is read); another
    identity begins another journal.
    """

    home: Home
    pipeline: str
    origin: Literal["table", "stream"]
    name: str
    address: str
    identity: tuple[str, ...]

    @property
    def key(self) -> str:
        """What files of this journal are named by."""
        return f"{self.origin}-{fingerprint(self.origin, self.identity)}"

    @property
    def folder(self) -> Path:
        """Where the records lie: ``<number>.json``."""
        return self.home.data(self.pipeline) / "batches" / self.key

    def parts(self) -> list[Part]:
        """All batches so far, in order, each with its file whole.

        Raises:
            DataError: one is missing or damaged: its rows cannot be had a second time.
        """
        found = []
        for number, path in enumerate(sorted(self.folder.glob("[!.]*.json")), 1):
            part = self._read(number, path)
            kept = self.home.absolute(part.path)
            if path != self._record(number) or not kept.is_file() or file_digest(kept) != part.digest:
                raise self._damaged(number, kept if path == self._record(number) else self._record(number))
            found.append(part)
        if not found:
            self._tell_of_others()
        return found

    def newest(self) -> tuple[int, Part | None]:
        """The number of batches, and the last one; None when there is none, or its file is not whole any more."""
        paths = sorted(self.folder.glob("[!.]*.json"))
        part = read_record(paths[-1], Part) if paths else None
        whole = part is not None and is_whole(self.home.absolute(part.path), part.digest)
        return len(paths), part if whole else None

    def append(
        self, frames: Iterable[pl.DataFrame], *, after: int, since: str | None, upto: str | None, now: datetime
    ) -> Part | None:
        """Write the rows as the batch that follows the ``after`` ones and vouch for it; arguments as for ``draft``."""
        part = self.draft(frames, after=after, since=since, upto=upto, now=now)
        if part is not None:
            self.vouch(part, after=after)
        return part

    def draft(
        self,
        frames: Iterable[pl.DataFrame],
        *,
        after: int,
        now: datetime,
        since: str | None = None,
        upto: str | None = None,
    ) -> Part | None:
        """Write the rows, and read them back; None, and nothing written, when there are none.

        Args:
            frames: of one schema; ``_row`` is added.
            after: the number of batches so far.
            now: kept as ``ingested_at``.
            since: the watermark that the batch begins above.
            upto: the watermark that it moves to.

        Raises:
            UnreadableFile: what was written cannot be read back.
        """
        filled = _numbered(frames)
        first = next(filled, None)
        if first is None:
            return None
        number = after + 1
        path = self.home.data(self.pipeline) / "parts" / f"{self.key}-{number:08}.parquet"
        with replacing(path) as temporary:
            rows, columns = write_raw(chain([first], filled), temporary)
        digest = _read_back(path, rows)
        return Part(
            # Two batches may hold equal rows and are two; a whole table that is as it was is the same part.
            fingerprint=fingerprint(_WRITER, self.key, None if upto is None else number, digest),
            file=f"{self.name} #{number}",
            origin=self.origin,
            address=self.address,
            sha256=digest,
            rows=rows,
            columns=columns,
            path=self.home.relative(path),
            ingested_at=now,
            digest=digest,
            since=since,
            upto=upto,
        )

    def vouch(self, part: Part, *, after: int) -> None:
        """Write the record of a drafted batch: from here on it is one of ``parts``."""
        path = self.home.data(self.pipeline) / "parts" / f"{part.fingerprint}.json"
        write_record(path, part)
        write_record(self._record(after + 1), part)

    def _record(self, number: int) -> Path:
        return self.folder / f"{number:08}.json"

    def _read(self, number: int, path: Path) -> Part:
        try:
            return parse_record(path.read_bytes(), Part)
        except ValueError as error:
            raise self._damaged(number, path) from error

    def _damaged(self, number: int, path: Path) -> DataError:
        return DataError(
            f"Batch {number} of {self.name!r} is missing or damaged: {path}. Its rows may be gone from the source, so "
            f"it is not read again: put the file back from a backup."
        )

    def _tell_of_others(self) -> None:
        others = [folder.name for folder in self.folder.parent.glob("[!.]*") if any(folder.glob("[!.]*.json"))]
        if others:
            logger.warning(
                "%s: %s is read for the first time; the batches of %s belong to another address or table and are left "
                "out",
                self.pipeline,
                self.name,
                ", ".join(others),
            )


def _numbered(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    rows = 0
    for frame in frames:
        if frame.height:
            yield frame.with_row_index(ROW, offset=rows + 1)
            rows += frame.height


def _read_back(path: Path, rows: int) -> str:
    """The file's digest, after its rows were counted."""
    counted = pl.scan_parquet(path).select(pl.len()).collect().item()
    if counted != rows:
        raise UnreadableFile(f"{path} holds {counted} rows, {rows} were written. Check the disk and run again.")
    return file_digest(path)
