"""Where a model's stored features are read from: a file of this machine, or a server that all models share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ferroflow.adapters.feast.cache import CachedRows
from ferroflow.adapters.feast.online_rows import cached_rows, read_plan
from ferroflow.adapters.feast.plan import PackedPlan, Rows
from ferroflow.adapters.home import Home
from ferroflow.core.contract import ServingContract


@dataclass(frozen=True)
class Online:
    """An online store that may be away."""

    rows: Rows
    file: Path | None = None  # the store, where it is one

    def open(self) -> Rows | None:
        """What to read from; None while its file is not there."""
        return self.rows if self.file is None or self.file.is_file() else None

    def cache(self) -> Mapping[str, int]:
        """Hits, misses and the like, of a store that is read through a cache."""
        return self.rows.statistics()._asdict() if isinstance(self.rows, CachedRows) else {}


class OnlineStores:
    """The online stores of a process: models of the same plan share connections and cache."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._known: dict[str, Online] = {}

    def of(self, contract: ServingContract, file: Path | None = None) -> Online | None:
        """The online store that a model needs; None when it looks nothing up.

        Args:
            file: a packed file that was delivered with the model, read unless the settings name a server.
        """
        if not contract.stored:
            return None
        plan = read_plan(contract, self.home)
        if isinstance(plan.store, PackedPlan):
            path = file or Path(plan.store.path)
            plan = plan.model_copy(update={"store": PackedPlan(path=str(path))})
        else:
            path = None
        name = plan.model_dump_json(exclude=None if path else {"store"})  # an address may hold a password
        if name not in self._known:
            self._known[name] = Online(cached_rows(plan), path)
        return self._known[name]
