"""The whole life of some data (ingested, validated, corrected, replayed, added to, pruned), to be killed anywhere."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
from pandera.polars import Field

from ferroflow.adapters.home import Home
from ferroflow.core.spec import Clip, Deduplicate, Default, PipelineSpec
from ferroflow.stations import expiry, fixing
from ferroflow.stations.fixing import Fix
from ferroflow.stations.ingest import ingest
from ferroflow.stations.replay import replay
from ferroflow.stations.validate import validate
from tests.parcels import AS_OF, HEADER, NOW, Parcel, parcels, settings_for

FIRST = (
    HEADER
    + "1,2024-01-01 10:00,1,2.5,3\n2,2024-01-02 11:00,2,,4\n"
    + "3,2024-01-03 10:00,1,-1,3\n"  # a weight below zero: corrected
    + "4,2024-01-03 10:00,9,1,3\n"  # no such city: expires
    + "five,2024-01-04,1,1,3\n"  # no number: expires
    + "6,2024-01-03 10:00,1,1\n"  # a cell is missing: the line is corrected
    + "1,2024-01-01 10:00,1,2.5,3\n"  # the first row again
)
SECOND = HEADER + "2,2024-02-02 11:00,2,1,4\n8,2024-02-03,1,1,99\n9,2024-02-03,1,1,9\n"
LANDED = HEADER + "9,2024-03-03,2,3,8\nx,2024-03-03,2,3,8\n"
LATER = NOW + timedelta(days=100)


class Free(Parcel):
    """A parcel whose id may come again."""

    id: pl.Int64 = Field(nullable=True)


def specs() -> dict[str, PipelineSpec]:
    """One pipeline, declared in three ways."""
    plain = parcels(files=("parcels.csv", "more.csv"))
    return {
        "plain": plain,
        "keyed": dataclasses.replace(parcels(files=("parcels.csv", "more.csv"), key=("id",)), schema=Free),
        "cleaned": dataclasses.replace(
            plain,
            cleaning=(Default("kilos", 1.0), Clip(column="days", high=30), Deduplicate(("id",))),
            personal=("kilos",),
        ),
    }


def live(spec: PipelineSpec, home: Home, post: Path, *, to_the_end: bool = True) -> None:
    """Everything that happens to the data; to be called again after whatever happened to the process.

    Without its end nothing is pruned: then all can be made again.
    """
    settings = settings_for(home, mirror=str(post))
    validate(spec, ingest(spec, AS_OF, home, now=NOW, settings=settings), home)
    landing = home.landing(spec.name)
    landing.mkdir(parents=True, exist_ok=True)
    (landing / "late.csv").write_text(LANDED)
    snapshot = ingest(spec, AS_OF, home, now=NOW, settings=settings)
    validate(spec, snapshot, home)
    first = snapshot.parts[0].fingerprint
    for line, fix in ((4, Fix({"kilos": "1"})), (7, Fix({}, line="6,2024-01-03 10:00,1,1,5"))):
        changes = fixing.changes_of(spec, home, [f"{first}:{line}"], fix)
        fixing.fix(spec, home, changes, why="telephone", made_at=NOW)
        replay(spec, home, now=NOW)
    if to_the_end:
        expiry.expire(spec.name, home, older_than=timedelta(days=90), now=LATER, dry_run=False)


def _die_at(step: int) -> None:
    """Kill this process by SIGKILL just before its ``step``-th move or removal of a file."""
    left = step

    def dying(real: Any) -> Any:
        def operation(*args: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **named)

        return operation

    Path.replace = dying(Path.replace)  # type: ignore[method-assign]
    Path.unlink = dying(Path.unlink)  # type: ignore[method-assign]


def _fork(spec: PipelineSpec, step: int, home: Home, post: Path) -> int:
    child = os.fork()
    if child:
        return child
    os.fsync = lambda _: None  # a killed process loses nothing that the system has: only a power cut would
    if step:
        _die_at(step)
    live(spec, home, post)
    os._exit(0)


def _fork_all(post: Path, lives: list[str], at_once: int = 2) -> None:
    """Live each ``<spec>:<step>:<home>`` in children of their own: once to be killed at that step, then to the end.

    Prints the signals that ended the first children. Nothing of Polars may run here before the forks: its threads
    would be missing in the children.
    """
    every = specs()
    waiting = [(name, int(step), Home(Path(home))) for name, step, home in (life.split(":", 2) for life in lives)]
    running: dict[int, tuple[str, int, Home]] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            name, step, home = waiting.pop(0)
            running[_fork(every[name], step, home, post)] = (name, step, home)
        child, status = os.wait()
        name, step, home = running.pop(child)
        sys.stdout.write(f"{name} {step} {status}\n")
        if step:
            waiting.insert(0, (name, 0, home))


if __name__ == "__main__":
    _fork_all(Path(sys.argv[1]), sys.argv[2:])
