"""Online rows in packed SQLite files, for readers in several threads."""

from __future__ import annotations

import os
import sqlite3
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ferroflow.adapters.feast.connections import Connections
from ferroflow.adapters.feast.packed import PackedStore
from ferroflow.adapters.feast.plan import Entry, Key, OnlineStoreAway, PackedPlan, ReadPlan
from ferroflow.adapters.feast.rows import Kind, Watermark
from ferroflow.adapters.feast.values import decode, moment
from ferroflow.core.errors import DataError, SpecError

_CONVERTED: dict[Kind, Callable[[Any], Any]] = {"time": moment, "proto": decode}


class PackedRows:
    """Rows of a plan whose store is packed: a connection a thread, opened again when the file is another one.

    A file that is not there answers as an empty store: a service may start before the first materialization.
    """

    def __init__(self, plan: ReadPlan) -> None:
        if not isinstance(plan.store, PackedPlan):
            raise SpecError(f"The plan's store is {plan.store.type!r}; packed rows need 'packed'.")
        self.plan = plan
        self._files = {view.view: (Path(view.file or plan.store.path), view.table) for view in plan.views}
        self._local = threading.local()
        self._open = Connections()
        self._conversions: dict[tuple[str, tuple[str, ...]], list[tuple[int, Callable[[Any], Any]]]] = {}

    def read(self, view: str, keys: Sequence[Key], features: Sequence[str]) -> Mapping[Key, Entry]:
        """The newest row of each entity that is there.

        Raises:
            OnlineStoreAway: the file cannot be read.
            DataError: a key is no 64-bit number or no text, or a stored value is none of its kind.
        """
        asked = tuple(features)
        conversions = self._conversions.get((view, asked))
        if conversions is None:
            kinds = dict(self.plan.of(view).features)
            conversions = [
                (place, _CONVERTED[kinds[name]]) for place, name in enumerate(asked) if kinds.get(name) in _CONVERTED
            ]
            self._conversions[view, asked] = conversions
        file, table = self._files[view]
        try:
            found = self._store(file).read(table, keys, asked)
        except OverflowError as error:
            raise DataError(f"A key of {view!r} is no 64-bit number: {error}.") from error
        except UnicodeEncodeError as error:
            raise DataError(f"A key of {view!r} is no text: {error.object!r} ({error.reason}).") from error
        except (sqlite3.Error, struct.error, UnicodeDecodeError) as error:
            raise OnlineStoreAway(f"The online store {file.name} cannot be read: {error}") from error
        for place, convert in conversions:
            for key, (_, values) in found.items():
                try:
                    values[place] = convert(values[place])
                except (OverflowError, DataError) as error:
                    raise DataError(
                        f"{asked[place]!r} of {view!r} cannot be {values[place]!r}, which is stored for {key!r}: "
                        f"{error}. Materialize the view again."
                    ) from error
        return found

    def watermark(self, view: str) -> Watermark | None:
        """How far the view is complete; None when nobody said."""
        self.plan.of(view)
        file, table = self._files[view]
        try:
            return self._store(file).watermark(table)
        except sqlite3.Error as error:
            raise OnlineStoreAway(f"The online store {file.name} cannot be read: {error}") from error

    def close(self) -> None:
        """Close the files; a later read opens them again."""
        self._local = threading.local()  # first: who connects meanwhile keeps what it made
        self._open.close()

    def _store(self, file: Path) -> PackedStore:
        stores: dict[Path, tuple[tuple[int, ...], PackedStore, object]] = self._local.__dict__.setdefault("stores", {})
        try:
            status = os.stat(file)  # noqa: PTH116 - half the cost of the path's own
            identity = (status.st_dev, status.st_ino, os.getpid())
        except OSError:
            identity = (0, 0, os.getpid())
        known = stores.get(file)
        if known is None or known[0] != identity:
            store = PackedStore(file, read_only=True)
            known = stores[file] = (identity, store, self._open.add(store.close))  # closes what was known
        return known[1]
