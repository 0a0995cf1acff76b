"""``ferroflow new``: a whole pipeline folder from a data file, proven on that file before it appears."""

from __future__ import annotations

import importlib
import keyword
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from ferroflow.adapters import pipelines
from ferroflow.adapters.sources.files import read_raw
from ferroflow.core.errors import DataError, EmptySource, UsageError
from ferroflow.core.spec import PipelineSpec
from ferroflow.core.validation import check_rows, reason_kind
from ferroflow.scaffold.ask import Ask, Question
from ferroflow.scaffold.layout import layout_of
from ferroflow.scaffold.plan import Asked, Plan, plan
from ferroflow.scaffold.typed import Table, table_of
from ferroflow.scaffold.write import files_of

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Wanted:
    """What was asked for; None: look for it, or ask."""

    name: str
    file: Path
    target: str | None = None
    time: str | None = None
    entity: str | None = None
    positive: str | None = None
    columns: tuple[str, ...] = ()
    into: Path | None = None
    force: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Made:
    """A pipeline that was written (or would be): its files' text, the decisions, and what its schema says of the file.

    ``accepted`` and ``quarantined`` count the rows that were looked at; ``reasons`` counts the quarantined ones.
    ``known`` is whether the other commands look through the folder.
    """

    folder: Path
    files: dict[str, str]
    plan: Plan
    accepted: int
    quarantined: int
    reasons: dict[str, int]
    known: bool


def new_pipeline(wanted: Wanted, *, now: datetime, ask: Ask, progress: Callable[[int], None] | None = None) -> Made:
    """Read a data file, decide, write the folder whole, and judge the file's rows by it.

    Args:
        wanted: what was asked for.
        now: data that end before are a replay of the past.
        ask: asked where the file does not say it.
        progress: told the rows read so far.

    Raises:
        UsageError: the name is taken or is none, or a column cannot be what it is asked to be.
        DataError: the file makes no table, or not one that anything can be learnt from.
    """
    into = (wanted.into or _place()).expanduser().absolute()
    _check_name(wanted, into)
    layout = layout_of(wanted.file.expanduser(), wanted.columns, ask)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "raw.parquet"
        raw = read_raw(layout.path, layout.options, layout.path.name, path, progress)
        if not raw.rows:
            raise EmptySource(f"{layout.path.name} holds no row. A pipeline is inferred from rows: give a fuller file.")
        table = table_of(pl.scan_parquet(path), raw.rows)
        target = wanted.target or _asked_target(table, ask)
        asked = Asked(target, wanted.time, wanted.entity, wanted.positive)
        decided = plan(wanted.name, layout, table, asked, now=now, ask=ask)
        files = files_of(decided, layout.path.absolute().as_posix())
        return _written(wanted, into, files, decided, table)


def _written(wanted: Wanted, into: Path, files: dict[str, str], decided: Plan, table: Table) -> Made:
    """Write below a hidden folder, load and try it there, and move it into its place."""
    if not wanted.dry_run:
        into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=None if wanted.dry_run else into) as hidden:
        folder = Path(hidden) / wanted.name
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        with _loaded(folder) as spec:
            accepted, reasons = _judged(spec, table)
        if not wanted.dry_run:
            _move(folder, into / wanted.name, Path(hidden))
    quarantined = table.sample.height - accepted
    known = into.resolve() in [place.resolve() for place in pipelines.folders()]
    return Made(into / wanted.name, files, decided, accepted, quarantined, reasons, known)


def _judged(spec: PipelineSpec, table: Table) -> tuple[int, dict[str, int]]:
    checked = check_rows(
        table.sample,
        spec.schema,
        derive=spec.derive,
        null_values=spec.source.null_values,
        cleaning=spec.cleaning,
        personal=spec.personal,
    )
    rows = checked.quarantined["reasons"].to_list()
    kinds = Counter(kind for row in rows for kind in set(map(reason_kind, row)))
    if not checked.accepted.height:
        why = "; ".join(f"{kind} ({count:,})" for kind, count in kinds.most_common(3))
        raise DataError(f"No row of the file would be accepted: {why}. Mend the file, or choose another --time.")
    return checked.accepted.height, dict(kinds.most_common())


def _move(folder: Path, target: Path, hidden: Path) -> None:
    """In one step, once the bytes are on the disk; what was there before goes with the hidden folder."""
    _to_disk(folder)
    if target.exists():
        target.rename(hidden / "before")
    folder.rename(target)


def _to_disk(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _loaded(folder: Path) -> Iterator[PipelineSpec]:
    """The pipeline of a folder that is in no place where pipelines are looked for; forgotten afterwards."""
    package = importlib.import_module("pipelines")
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    package.__path__.insert(0, str(folder.parent))
    _forget(folder.name)
    importlib.invalidate_caches()
    try:
        yield importlib.import_module(f"pipelines.{folder.name}.spec").pipeline
    finally:
        package.__path__.remove(str(folder.parent))
        sys.dont_write_bytecode = written
        _forget(folder.name)


def _forget(name: str) -> None:
    for module in [module for module in sys.modules if f"{module}.".startswith(f"pipelines.{name}.")]:
        del sys.modules[module]


# ------------------------------------------------------------------------------------------------------------ questions


def _check_name(wanted: Wanted, into: Path) -> None:
    name, target = wanted.name, into / wanted.name
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise UsageError(
            f"{name!r} is no name for a pipeline. Use lower-case letters, digits and underscores, a letter first, and "
            "no word of Python's own."
        )
    if target.exists() and not wanted.force:
        raise UsageError(f"{target} is there already. Choose another name, or --force to replace it.")
    if target.exists() and not (target / "spec.py").is_file():
        raise UsageError(f"{target} is no pipeline's folder, and --force does not replace it. Choose another name.")
    if not target.exists() and name in pipelines.names():
        raise UsageError(f"There is a pipeline {name!r} already, in another folder. Choose another name.")


def _place() -> Path:
    """The first folder that the user named for pipelines, else pipelines/ below the current one."""
    named = [part for part in os.environ.get(pipelines.VARIABLE, "").split(os.pathsep) if part]
    return Path(named[0]) if named else Path("pipelines")


def _asked_target(table: Table, ask: Ask) -> str:
    return ask(Question("Which column is to be predicted?", "--target", tuple(table.types)))


def summary(made: Made, commands: Sequence[str]) -> dict[str, object]:
    """The decisions as plain data, with the commands that may follow."""
    decided, clock = made.plan, made.plan.clock
    return {
        "pipeline": decided.name,
        "folder": str(made.folder),
        "files": list(made.files),
        "target": decided.target.column,
        "task": "regression" if decided.target.regression else "classification",
        "positive": decided.target.positive,
        "time": clock.moment.column if clock else None,
        "entity": decided.entity,
        "inputs": list(decided.roles.inputs),
        "categorical": list(decided.roles.categorical),
        "known_with": decided.roles.known_with,
        "personal": list(decided.personal),
        "left_out": {**decided.roles.left_out, **decided.strange},
        "null_values": list(decided.null_values),
        "rows": {
            "in": decided.rows,
            "looked_at": made.accepted + made.quarantined,
            "accepted": made.accepted,
            "quarantined": made.quarantined,
        },
        "reasons": made.reasons,
        "next": list(commands),
    }
