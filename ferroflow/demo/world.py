"""The demonstration's world: raw rows arrive day by day, and change when the story says so."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass

import polars as pl

from ferroflow.adapters import pipelines
from ferroflow.adapters.home import Home
from ferroflow.adapters.settings import Settings
from ferroflow.adapters.storage import atomic_parquet
from ferroflow.core.demonstration import Demonstration
from ferroflow.core.errors import NotFound
from ferroflow.core.records import Validated
from ferroflow.core.spec import PipelineSpec


def find() -> tuple[PipelineSpec, Demonstration]:
    """The first pipeline that brings a ``demonstration.py``.

    Raises:
        NotFound: none does.
    """
    for name in pipelines.names():
        if importlib.util.find_spec(f"pipelines.{name}.demonstration") is not None:
            module = importlib.import_module(f"pipelines.{name}.demonstration")
            return pipelines.load(name), module.demonstration
    raise NotFound("No pipeline brings a demonstration.py. Is the pipelines/ folder complete?")


@dataclass
class World:
    """Raw days of the held-back file; ``arrive`` puts one where the pipeline finds new files."""

    spec: PipelineSpec
    story: Demonstration
    home: Home
    held_back: pl.DataFrame
    seed: int

    @classmethod
    def open(cls, spec: PipelineSpec, story: Demonstration, home: Home, settings: Settings) -> World:
        """Fetch the held-back file the way every source file is fetched."""
        from ferroflow.adapters.sources.locate import locate

        located = locate(spec, story.held_back, home.downloads, settings)
        return cls(spec, story, home, pl.read_parquet(located.path), settings.seed)

    def arrive(self, day: int, mood: str) -> int:
        """Let a day's raw rows (changed by ``mood``: quiet, harmless or harm) land; gives how many."""
        [rows] = self.story.cut(self.held_back, day, 1)
        if mood == "harmless":
            rows = self.story.harmless(rows, self.held_back, self.seed + day)
        elif mood == "harm":
            rows = self.story.harm(rows, self.held_back)
        folder = self.home.landing(self.spec.name)
        folder.mkdir(parents=True, exist_ok=True)
        atomic_parquet(folder / f"day-{day:02}.parquet", rows)
        return rows.height

    def accepted(self, validated: Validated, day: int) -> pl.DataFrame:
        """That day's accepted rows, in the order of their event time."""
        time = str(self.spec.time)
        begin, end = self.story.midnight(day), self.story.midnight(day + 1)
        frames = [pl.scan_parquet(self.home.absolute(path)) for path in validated.accepted]
        rows = pl.concat(frames).filter(pl.col(time).is_between(begin, end, closed="left"))
        return rows.sort(time, "row_id").collect()
