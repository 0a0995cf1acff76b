"""Train/serve skew, counted: the model inputs that the service logged against what training would make of the rows.

Every prediction that is looked at is accounted for: compared, compared without its stored features (the online store
was away), or not comparable, with the reason. A push puts rows online before the offline store has them: what was
predicted since then is compared after the next refresh.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from ferroflow.adapters.home import Home
from ferroflow.adapters.predictions import PredictionLog
from ferroflow.adapters.storage import read_record, write_record
from ferroflow.core.catalogue import declared, personal
from ferroflow.core.contract import ServingContract
from ferroflow.core.errors import FerroflowError, SpecError
from ferroflow.core.fingerprint import file_digest, fingerprint
from ferroflow.core.records import FeatureSkew, ModelVersion, SkewReport
from ferroflow.core.skew import counted, merged
from ferroflow.core.spec import Performance, PipelineSpec
from ferroflow.core.splits import before
from ferroflow.stations import offline
from ferroflow.stations.recompute import Recomputed, recompute, watermarks

NEWEST = 20_000
"""How many of a window's predictions are looked at unless more are asked for: the newest ones."""

_VERSION = "skew/3"  # changes when the code counts something else for the same log and store
_FAILURES = (FerroflowError, OSError, pl.exceptions.PolarsError)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ID = "prediction_id"


@dataclass(frozen=True)
class _Chosen:
    """What is looked at."""

    predictions: int  # in the window
    lines: pl.DataFrame  # of the log: the newest of them
    rows: pl.DataFrame | None  # accepted rows that stand in for the requests
    contracts: dict[str, ServingContract | None]  # by version; None: gone
    parent: str | None  # the one version's fingerprint, when it is only one's


@dataclass(frozen=True)
class _Stored:
    """The offline store, while it is held."""

    trouble: str = ""  # why nothing can be computed from it
    until: datetime | None = None  # all that it can have, when some line saw later features; None: it has all


class _Computed(BaseModel):
    """The part of the offline store's record of its latest moment that matters here."""

    model_config = ConfigDict(frozen=True)

    as_of: datetime


def measure_skew(
    spec: PipelineSpec,
    as_of: datetime,
    home: Home,
    since: datetime | None = None,
    *,
    served: Sequence[ModelVersion] | None = None,
    newest: int | None = NEWEST,
    accepted: pl.LazyFrame | None = None,
) -> SkewReport:
    """Compare what models were fed with a point-in-time recomputation; exactly, by feature.

    The same log, store and description give the same report, and nothing is done twice.

    Args:
        as_of: predictions for moments before it are looked at.
        since: and not before this one; None: the windows that the monitor looks at.
        served: only what these versions answered; None: every version in the log, each by its own contract.
        newest: at most so many predictions, the newest; None: all.
        accepted: accepted rows with ``prediction_id``, to be used in place of the logged requests. Only predictions
            named there are then looked at.

    Raises:
        RegistryError: the registry is away.
    """
    since = since or window_start(spec, as_of)
    chosen = _chosen(spec, (since, as_of), home, served, newest, accepted)
    with _store(spec, chosen.lines, home) as store:
        name = _name(spec, chosen, (since, as_of), newest, store, home)
        path = home.data(spec.name) / "skew" / f"{name}.json"
        done = read_record(path, SkewReport)
        if done is not None:
            return done
        parts = _parts(spec, chosen, home, store)
    about = SkewReport(
        pipeline=spec.name,
        fingerprint=name,
        parent=chosen.parent,
        as_of=as_of,
        since=since,
        predictions=chosen.predictions,
        read=chosen.lines.height,
        **_sums(spec, parts),
    )
    write_record(path, about)
    return about


def _chosen(
    spec: PipelineSpec,
    window: tuple[datetime, datetime],
    home: Home,
    served: Sequence[ModelVersion] | None,
    newest: int | None,
    accepted: pl.LazyFrame | None,
) -> _Chosen:
    """The lines of the log that are looked at, with what is needed to make them again."""
    log = PredictionLog(home.predictions(spec.name)).read(*window)
    if served is not None:
        log = log.filter(pl.col("version").is_in([entry.version for entry in served]))
    rows = None if accepted is None else _standing_in(spec, accepted, log)
    if rows is not None:
        log = log.join(rows.select(_ID), left_on="id", right_on=_ID, how="semi", maintain_order="left")
    lines = log if newest is None else log.tail(newest)
    parent = served[0].fingerprint if served and len(served) == 1 else None
    return _Chosen(log.height, lines, rows, _contracts(spec, lines, home, served), parent)


def _name(
    spec: PipelineSpec,
    chosen: _Chosen,
    window: tuple[datetime, datetime],
    newest: int | None,
    store: _Stored,
    home: Home,
) -> str:
    """One name for the same log, contracts, description and offline store."""
    views = [] if store.trouble else [file_digest(_file(spec, view.name, home)) for view in spec.stored]
    contracts = {name: known.model_dump_json() if known else "" for name, known in chosen.contracts.items()}
    described = [offline.definitions(spec), spec.inputs, spec.personal]
    log = [chosen.parent, chosen.predictions, newest, _digest(chosen.lines, chosen.rows)]
    return fingerprint(_VERSION, spec.name, window, log, contracts, described, store.trouble, store.until, views)


def _standing_in(spec: PipelineSpec, accepted: pl.LazyFrame, log: pl.DataFrame) -> pl.DataFrame:
    """The accepted rows of these predictions: what a request could have said of them."""
    asked = log.lazy().select(pl.col("id").alias(_ID))
    return accepted.select(_ID, *spec.inputs).join(asked, on=_ID).unique(_ID, keep="any").collect()


def window_start(spec: PipelineSpec, as_of: datetime) -> datetime:
    """Where the last windows that the monitor judges begin."""
    policy: Performance = spec.monitor(Performance) or Performance()
    since = as_of
    for _ in range(policy.windows):
        since = before(since, policy.window, spec.source.timezone)
    return since


@contextmanager
def _store(spec: PipelineSpec, lines: pl.DataFrame, home: Home) -> Iterator[_Stored]:
    """Hold the offline store while it has all that the service can have seen, or as much of it as can be computed."""
    if not spec.stored:
        yield _Stored()
        return
    with offline.hold(spec, home):
        trouble, until = "", None
        try:
            if (moment := _reached(spec, lines)) is not None:
                until = _earlier(spec, moment, home)
                offline.bring_to(spec, until or moment, home)
            elif any(not _file(spec, view.name, home).is_file() for view in spec.stored):
                trouble = "there is no offline store"
        except _FAILURES as error:
            trouble = f"its stored features cannot be computed again: {_told(error)}"
        yield _Stored(trouble, until)


def _told(error: Exception) -> str:
    """What went wrong, in one line, without what Polars says of rows: it may hold their values."""
    if isinstance(error, FerroflowError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "a file of accepted or stored rows is gone"
    return error.strerror or "a file cannot be read" if isinstance(error, OSError) else type(error).__name__


def _reached(spec: PipelineSpec, lines: pl.DataFrame) -> datetime | None:
    """The latest moment that the online store was complete up to; None: it never was."""
    seen = [watermarks(lines["watermarks"], view.name)["event"].max() for view in spec.stored]
    known = [_EPOCH + timedelta(microseconds=int(str(mark))) for mark in seen if mark is not None]
    return max(known, default=None)


def _earlier(spec: PipelineSpec, moment: datetime, home: Home) -> datetime | None:
    """The latest moment that the offline store was computed for, where that is before this one."""
    found = read_record(home.offline(spec.name) / "latest.json", _Computed)
    return found.as_of if found is not None and found.as_of < moment else None


def _contracts(
    spec: PipelineSpec, lines: pl.DataFrame, home: Home, served: Sequence[ModelVersion] | None
) -> dict[str, ServingContract | None]:
    """The contract of each version in the log; None where it is gone."""
    names = lines["version"].unique().sort().to_list()
    if not names:
        return {}
    if served is None:
        from ferroflow.adapters import registry

        served = registry.versions(spec.name, home)
    folders = {entry.version: home.absolute(entry.package) for entry in served}
    return {name: _contract(folders.get(name), name, spec, home) for name in names}


def _contract(folder: Path | None, version: str, spec: PipelineSpec, home: Home) -> ServingContract | None:
    """A version's contract. A service without a registry calls a version by the beginning of its fingerprint."""
    if folder is None and len(version) >= 8:
        folder = next(iter(sorted(home.packages(spec.name).glob(f"{version}*"))), None)
    try:
        return None if folder is None else ServingContract.model_validate_json((folder / "serving.json").read_bytes())
    except (OSError, ValidationError):
        return None


def _parts(spec: PipelineSpec, chosen: _Chosen, home: Home, store: _Stored) -> list[Recomputed]:
    """Each version's lines, made again."""
    parts = []
    for version, contract in chosen.contracts.items():
        mine = chosen.lines.filter(pl.col("version") == version)
        if contract is None or (store.trouble and contract.stored):
            why = f"the contract of version {version} is gone" if contract is None else store.trouble
            parts.append(Recomputed(mine.clear(), (), Counter({why: mine.height})))
            continue
        asked = None
        if chosen.rows is not None:
            asked = mine.select(pl.col("id").alias(_ID)).join(chosen.rows, on=_ID, how="left", maintain_order="left")
        try:
            parts.append(recompute(spec, contract, mine, home, asked, store.until))
        except _FAILURES as error:
            why = f"its inputs cannot be made again: {_told(error)}"
            parts.append(Recomputed(mine.clear(), (), Counter({why: mine.height})))
    return parts


def _sums(spec: PipelineSpec, parts: Sequence[Recomputed]) -> dict[str, Any]:
    """The counts of a report."""
    shown = _shown(spec)
    found: list[FeatureSkew] = []
    excluded: Counter[str] = Counter()
    compared = degraded = differing = 0
    for part in parts:
        excluded += part.excluded
        names, versions = part.lines["id"], part.lines["version"]
        wrong = unread = pl.Series([False] * names.len(), dtype=pl.Boolean)
        for column in part.columns:
            counts, differs = counted(column, names, versions, shown=shown is None or column.name in shown)
            found.append(counts)
            wrong = wrong | differs
            unread = unread | (column.unread & column.logged.is_null() if column.unread is not None else False)
        compared += names.len() - int(unread.sum())
        degraded += int(unread.sum())
        differing += int(wrong.sum())
    return {
        "compared": compared,
        "degraded": degraded,
        "not_comparable": dict(excluded.most_common()),
        "differing": differing,
        "features": merged(found),
    }


def _shown(spec: PipelineSpec) -> set[str] | None:
    """Model inputs whose values may be shown: those that the description knows to be nobody's. None: all."""
    if not spec.personal:
        return None
    try:
        return {entry.name for entry in declared(spec) if not personal(entry, spec)}
    except SpecError:
        return set()


def _file(spec: PipelineSpec, view: str, home: Home) -> Path:
    return home.offline(spec.name) / f"{view}.parquet"


def _digest(lines: pl.DataFrame, rows: pl.DataFrame | None) -> str:
    """A digest of what was logged, labels left out, and of the rows that stand in for the requests."""
    found = hashlib.sha256()
    for name in ("id", "version", "inputs", "features", "watermarks"):
        found.update("\n".join(lines[name]).encode())
    found.update(lines.select(pl.col("at").dt.epoch("us")).write_csv().encode())
    if rows is not None:
        found.update(rows.sort(_ID).write_csv().encode())
    return found.hexdigest()
