"""Sources that are read bit by bit: what is new in a table or a stream becomes a batch, and each batch is a part."""

from __future__ import annotations

import socket
from datetime import datetime

from ferroflow.adapters.home import Home
from ferroflow.adapters.locks import locked
from ferroflow.adapters.sources.connections import shown
from ferroflow.adapters.sources.download import Progress
from ferroflow.adapters.sources.journal import Journal
from ferroflow.core.errors import SpecError
from ferroflow.core.fingerprint import fingerprint
from ferroflow.core.records import Part
from ferroflow.core.spec import PipelineSpec, Stream, Table


def taken(spec: PipelineSpec, home: Home, *, now: datetime, progress: Progress | None = None) -> list[Part]:
    """Take what is new in the pipeline's table or stream, and give the parts of all batches so far, in order.

    Where nothing is new the same parts are given again; none when there never was a row. Of a table without an
    incremental column it is one part: the table as it is. Killed at any moment, the next call completes it. Two calls
    at once wait for each other.

    Args:
        spec: whose ``source`` has a ``table`` or a ``stream``.
        home: where batches are kept.
        now: kept as ``ingested_at`` of new batches.
        progress: told as rows arrive: the table's or stream's name, bytes in memory so far, None.

    Raises:
        SourceUnavailable: the server cannot be reached, or goes away; what was taken until then is kept.
        SettingsError: the address is in no environment variable.
        SpecError: there is no such table, column or stream.
        SchemaError: a column cannot be kept exactly, or cannot be the incremental one.
        DataError: a batch of an earlier run is missing or damaged.
    """
    source = spec.source.table or spec.source.stream
    if source is None:
        raise SpecError(f"Pipeline {spec.name!r} reads neither a table nor a stream.")
    journal = _journal(spec, source, home)
    with locked(journal.folder):
        if isinstance(source, Table):
            from ferroflow.adapters.sources.tables import take_table

            return take_table(source, journal, now, progress)
        from ferroflow.adapters.sources.redis_stream import opened
        from ferroflow.adapters.sources.streams import take_stream

        # Whose unacknowledged messages they are: this home's, so that another one's are left alone while it lives.
        consumer = fingerprint(socket.gethostname(), str(home.root.resolve()), spec.name)
        with opened(source, consumer) as messages:
            return take_stream(source, messages, journal, now, progress)


def _journal(spec: PipelineSpec, source: Table | Stream, home: Home) -> Journal:
    address = shown(source.url)
    if isinstance(source, Stream):
        return Journal(home, spec.name, "stream", source.name, address, (address, source.name, source.group))
    name = source.name or f"query {fingerprint(source.query)[:6]}"
    identity = (address, source.name or "", source.query or "", source.since or "")
    return Journal(home, spec.name, "table", name, address, identity)
