"""Write a raw part: batches of rows go into one Parquet file as they come, in bounded memory.

Polars' streaming writer encodes a row group while the next batch is read. Its errors hide what a reader raised, so the
reader's own error is kept and raised instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl

from ferroflow.core.validation import LINE, PROBLEM, ROW

_ROW_GROUP = 122_880  # rows
_GROUP_CELLS = 16_000_000  # the writer holds a row group: of a wide table fewer rows


def write_raw(
    batches: Iterable[pl.DataFrame], target: Path, progress: Callable[[int], None] | None = None
) -> tuple[int, dict[str, str]]:
    """Write batches of one schema to the Parquet file ``target`` (zstd), in their order.

    Args:
        batches: frames of the same columns and types; taken in another thread but for the first. What reading them
            raises is passed on.
        target: a temporary path that the caller moves into place.
        progress: told the number of rows so far after each batch, in that thread.

    Returns:
        The number of rows, and column → type without the reserved names. Without any batch: 0, none, and no file.
    """
    feed = _Feed(batches, progress)
    first = feed.take()
    if first is None:
        return 0, {}
    group = min(_ROW_GROUP, _GROUP_CELLS // first.width + 1)
    try:
        feed.frames(first).sink_parquet(target, compression="zstd", compression_level=3, row_group_size=group)
    except Exception:
        if feed.error is not None:
            raise feed.error from None
        raise
    columns = {name: str(dtype) for name, dtype in first.schema.items() if name not in (ROW, PROBLEM, LINE)}
    return feed.rows, columns


class _Feed:
    """Hands batches to Polars' writer one by one; remembers the rows and what reading raised."""

    def __init__(self, batches: Iterable[pl.DataFrame], progress: Callable[[int], None] | None) -> None:
        self.rows = 0
        self.error: BaseException | None = None
        self._batches = iter(batches)
        self._progress = progress

    def take(self) -> pl.DataFrame | None:
        """The next batch; None at the end."""
        batch = next(self._batches, None)
        if batch is not None:
            self.rows += batch.height
            if self._progress is not None:
                self._progress(self.rows)
        return batch

    def frames(self, first: pl.DataFrame) -> pl.LazyFrame:
        """All batches as one lazy frame that can be read once; ``first`` was taken to know the schema."""
        from polars.io.plugins import register_io_source

        def source(
            columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, batch_rows: int | None
        ) -> Iterator[pl.DataFrame]:
            batch: pl.DataFrame | None = first
            # One batch is read while the one before is written; no more, or they would pile up.
            with ThreadPoolExecutor(1, "read-raw") as reader:
                while batch is not None:
                    following = reader.submit(self.take)
                    yield batch
                    try:
                        batch = following.result()
                    except BaseException as error:
                        self.error = error
                        raise

        return register_io_source(source, schema=first.schema)
