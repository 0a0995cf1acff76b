"""Read Parquet and Arrow files batch by batch, with their own types.

By pyarrow, not by Polars: of 20,000 Parquet files with a few wrong bytes one made Polars ask for 2 EB of memory, which
ends the process; pyarrow refused each with an error. Every batch is checked in full before Polars sees it (offsets,
UTF-8), because Polars trusts what it is handed. That check passes over what stands in the place of a null, and Polars
(as pyarrow's own cast) follows a text's address also there: one wrong bit in it ends the process. So the places of
nulls are cleared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ferroflow.core.sources import reserved
from ferroflow.core.validation import ROW

_BATCH = 122_880  # rows
_VIEW = 16  # bytes of Arrow's address of a text or binary value


def parquet_frames(path: Path) -> Iterator[pl.DataFrame]:
    """A Parquet file's rows in its order, with ``_row`` from 1; its own columns and types.

    Raises:
        ValueError: it has no column, or names that cannot be kept.
        OSError, pyarrow.ArrowException, polars.exceptions.PolarsError: its bytes are no whole Parquet file.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        _check_names(file.schema_arrow.names, file.metadata.num_rows)
        yield from _numbered(file.iter_batches(_BATCH), file.schema_arrow)


def arrow_frames(path: Path) -> Iterator[pl.DataFrame]:
    """As ``parquet_frames``, of an Arrow IPC file (Feather) or an Arrow IPC stream."""
    import pyarrow as pa

    with path.open("rb") as file:
        head = file.read(6)
    if head.startswith(b"FEA1"):
        raise ValueError("it is Feather version 1, which no present library writes; write it anew as version 2")
    with pa.OSFile(str(path)) as source:
        if head == b"ARROW1":
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(place) for place in range(reader.num_record_batches))
        else:
            reader = pa.ipc.open_stream(source)
            batches = iter(reader)
        _check_names(reader.schema.names, None)
        yield from _numbered(map(_cleared_batch, batches), reader.schema)


def _numbered(batches: Iterator[Any], schema: Any) -> Iterator[pl.DataFrame]:
    rows = 0
    for batch in batches:
        batch.validate(full=True)
        if not batch.num_rows:
            continue
        frame = pl.DataFrame(pl.from_arrow(batch))
        yield frame.with_row_index(ROW, offset=rows + 1)
        rows += frame.height
    if not rows and len(schema):  # a table without a row
        yield pl.DataFrame(pl.from_arrow(schema.empty_table())).with_row_index(ROW)


def _cleared_batch(batch: Any) -> Any:
    """A record batch of an IPC file (its arrays begin at their first slot) that is safe to hand on.

    Raises:
        ValueError: a value is not where the batch says it is, or of a type that Polars has not.
    """
    import pyarrow as pa

    batch.validate(full=True)
    return pa.RecordBatch.from_arrays([_cleared(column) for column in batch.columns], schema=batch.schema)


def _cleared(array: Any) -> Any:
    """An Arrow array whose addresses (of texts, binary values, dictionary entries) are 0 where it is null."""
    import pyarrow as pa

    kind = array.type
    if kind in (pa.string_view(), pa.binary_view()):
        return _with_zeros(array, _VIEW)
    if pa.types.is_dictionary(kind):
        indices = _with_zeros(array.indices, kind.index_type.byte_width)
        return pa.DictionaryArray.from_arrays(indices, _cleared(array.dictionary), ordered=kind.ordered)
    if pa.types.is_struct(kind):
        inside = [array.field(place) for place in range(kind.num_fields)]
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inside = [array.values]
    elif kind.num_fields:
        raise ValueError(f"it has a column of type {kind}, which cannot be kept")
    else:
        return array
    own = array.buffers()[: kind.num_buffers]
    children = [_cleared(child) for child in inside]
    return pa.Array.from_buffers(kind, len(array), own, children=children)


def _with_zeros(array: Any, width: int) -> Any:
    """An array of slots of ``width`` bytes with zeros in those of nulls."""
    import numpy as np
    import pyarrow as pa

    valid, slots, *others = array.buffers()
    if valid is None:
        return array
    rows = len(array)
    keep = np.unpackbits(np.frombuffer(valid, np.uint8), count=rows, bitorder="little")
    cleared = np.frombuffer(slots, np.uint8)[: rows * width].reshape(rows, width) * keep[:, None]
    return pa.Array.from_buffers(array.type, rows, [valid, pa.py_buffer(cleared.tobytes()), *others])


def _check_names(names: Sequence[str], rows: int | None) -> None:
    if not names and rows != 0:
        raise ValueError("it has no column")
    repeated = sorted({name for name in names if names.count(name) > 1 or "\x00" in name})
    if repeated:
        raise ValueError(f"it has repeated or unusable column names: {', '.join(map(repr, repeated))}")
    if ours := reserved(names):
        raise ValueError(f"it has a column name that is kept for Ferroflow: {', '.join(ours)}")
