"""The one folder that holds all state, and what lies where in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ferroflow.adapters.settings import Settings


@dataclass(frozen=True)
class Home:
    """Paths below ``root``; nothing is made by asking for one. Records hold paths relative to it.

    Two things may lie on servers instead: their addresses, which may hold passwords, are here too.
    """

    root: Path
    online_store: str | None = field(default=None, repr=False)
    """``redis://...`` or ``postgresql://...``; None: packed SQLite files below ``root``."""
    registry_address: str | None = field(default=None, repr=False)
    """``postgresql://...`` of Feast's registry; None: a SQLite file below ``root``."""

    @classmethod
    def of(cls, settings: Settings) -> Home:
        """The home that the settings name."""
        online, registry = (
            address.get_secret_value() for address in (settings.online_store, settings.feature_registry)
        )
        return cls(settings.home, *(None if address == "sqlite" else address for address in (online, registry)))

    def absolute(self, relative: str) -> Path:
        """The path of something a record names."""
        return self.root / relative

    def relative(self, path: Path) -> str:
        """The name to keep in a record."""
        return path.relative_to(self.root).as_posix()

    @property
    def downloads(self) -> Path:
        """Source files fetched from their address, and ``checksums.json``."""
        return self.root / "downloads"

    def landing(self, pipeline: str) -> Path:
        """Files put here are ingested with the source's own."""
        return self.root / "landing" / pipeline

    def data(self, pipeline: str) -> Path:
        """Snapshots, validated rows, training tables, splits, models: ``<kind>/<fingerprint>``."""
        return self.root / "data" / pipeline

    def offline(self, pipeline: str) -> Path:
        """Parquet files of the stored features, one a view."""
        return self.root / "features" / pipeline

    @property
    def feature_registry(self) -> Path:
        """Feast's registry (SQLite)."""
        return self.root / "features" / "registry.db"

    def online(self, pipeline: str) -> Path:
        """The packed online store (SQLite)."""
        return self.root / "online" / f"{pipeline}.db"

    @property
    def mlflow(self) -> Path:
        """The registry's ``mlflow.db`` and ``artifacts/``."""
        return self.root / "mlflow"

    @property
    def ledger(self) -> Path:
        """The append-only deployment ledger (SQLite)."""
        return self.root / "ledger.db"

    def packages(self, pipeline: str) -> Path:
        """What the service loads: a folder a version, with model.onnx and serving.json."""
        return self.root / "packages" / pipeline

    @property
    def bentos(self) -> Path:
        """``BENTOML_HOME``."""
        return self.root / "bentos"

    def predictions(self, pipeline: str) -> Path:
        """The prediction log with its labels (SQLite)."""
        return self.root / "predictions" / f"{pipeline}.db"

    def last_good(self, pipeline: str) -> Path:
        """The model the service starts with when the registry is away."""
        return self.root / "serving" / pipeline

    def reports(self, pipeline: str) -> Path:
        """Evidently's pages."""
        return self.root / "reports" / pipeline

    @property
    def prefect(self) -> Path:
        """``PREFECT_HOME``: database, results, profiles."""
        return self.root / "prefect"

    @property
    def processes(self) -> Path:
        """What ``up`` started: ids, start times, addresses."""
        return self.root / "processes.json"

    @property
    def logs(self) -> Path:
        """One file a process."""
        return self.root / "logs"
