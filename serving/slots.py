"""Which model answers for which pipeline, and the thread that follows the registry's champion.

A slot's model is replaced by one assignment: a request that has begun ends on the model it began with.
"""

from __future__ import annotations

import gc
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ferroflow.adapters.champion import ChampionReader, ChampionRef
from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import atomic_bytes
from ferroflow.core.errors import FerroflowError, ModelError
from serving.limits import Places
from serving.model import CONTRACT, GRAPH, VERSION, Model, VersionNote, load
from serving.online import OnlineStores

logger = logging.getLogger(__name__)

_PATIENCE = 10.0  # seconds without an answer of the registry before that counts as degraded
_RETRY = 5.0  # seconds before a package that did not load is tried again
_KEPT = 2  # last-good copies: the one that is named, and the one that a starting worker may just be reading


@dataclass
class Slot:
    """One pipeline's place: what answers now, and what is wrong with it."""

    current: Model | None = None
    trouble: str | None = None  # why the champion is not what answers
    failed: ChampionRef | None = None
    failed_at: float = 0.0


@dataclass
class Slots:
    """All pipelines' places. ``on_swap`` is told pipeline, old and new model whenever another takes over."""

    places: Places
    poll_seconds: float
    on_swap: Callable[[str, Model | None, Model], None]
    slots: dict[str, Slot] = field(default_factory=dict)
    trouble: str | None = None  # what the registry said when it could not be asked
    _answered: float = 0.0  # when the registry last answered; zero: never
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self._reader = ChampionReader(self.places.home.root, self.places.tracking_uri)
        self._stores = OnlineStores(self.places.home)

    def start(self) -> None:
        """Load what can be had, then follow the registry in a thread of its own."""
        self._turn()
        for pipeline, folder, source in self._fallbacks():
            if self._slot(pipeline).current is None:
                self._fall_back(pipeline, folder, source)
        gc.collect()
        gc.freeze()  # a full collection would otherwise walk everything that was loaded, in the middle of a request
        self._thread = threading.Thread(target=self._run, name="champions", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def model(self, pipeline: str) -> Model | None:
        """What answers for a pipeline now."""
        slot = self.slots.get(pipeline)
        return slot.current if slot else None

    def served(self) -> dict[str, Model]:
        """All pipelines that are answered for."""
        return {name: slot.current for name, slot in sorted(self.slots.items()) if slot.current is not None}

    def reasons(self, pipeline: str) -> tuple[str, ...]:
        """Why a pipeline's answers may not be the champion's; empty: they are."""
        slot = self.slots.get(pipeline)
        if slot is None:
            return ()
        found = [slot.trouble] if slot.trouble else []
        if slot.current is not None:
            found += slot.current.notes
            found += [] if slot.current.source == "registry" else [f"serving the {slot.current.source} model"]
        if self._registry_away():
            found.append("registry away")
        return tuple(found)

    def follow(self) -> None:
        """Ask the registry once, and load every champion that is not what answers."""
        try:
            names = self._reader.pipelines()
        except FerroflowError as error:
            self._away(str(error))
            return
        self.trouble, self._answered = None, time.monotonic()
        for name in names:
            self._follow_one(name)
        for name, slot in self.slots.items():
            if name not in names and slot.current is not None and slot.current.source == "registry":
                slot.trouble = "the registry has no champion any more"

    def _follow_one(self, pipeline: str) -> None:
        slot = self._slot(pipeline)
        try:
            ref = self._reader.read(pipeline)
        except FerroflowError as error:
            slot.trouble = str(error)
            return
        if ref is None:  # the alias went away in between; the next poll says so
            return
        current = slot.current
        if current and current.source == "registry" and _same(current, ref):
            slot.trouble = slot.failed = None
            return
        if ref == slot.failed and time.monotonic() - slot.failed_at < _RETRY:
            return
        self._load(pipeline, slot, ref)

    def _load(self, pipeline: str, slot: Slot, ref: ChampionRef) -> None:
        home = self.places.home
        folder = home.absolute(ref.package)
        try:
            model = load(folder, version=ref.version, source="registry", online=self._stores.of)
            if model.contract.fingerprint != ref.fingerprint:
                raise ModelError(f"{ref.package} holds model {model.contract.fingerprint}, not {ref.fingerprint}.")
        except Exception as error:  # whatever a package does, the old model goes on: recorded in the slot and the log
            slot.trouble = f"version {ref.version} did not load: {error}"
            slot.failed, slot.failed_at = ref, time.monotonic()
            logger.exception("version %s of %s did not load; serving goes on with what there is", ref.version, pipeline)
            return
        before = slot.current
        slot.current, slot.trouble, slot.failed = model, None, None
        self.on_swap(pipeline, before, model)
        logger.info("%s: version %s answers", pipeline, ref.version)
        try:
            keep(home, pipeline, folder, VersionNote(version=ref.version, fingerprint=ref.fingerprint))
        except OSError as error:
            logger.warning("the last good model of %s cannot be kept: %s", pipeline, error)

    def _fallbacks(self) -> Iterator[tuple[str, Path, str]]:
        """Last good models first, then those of the bundle."""
        for pointer in sorted(self.places.home.root.glob("serving/*/current")):
            yield pointer.parent.name, pointer.parent / pointer.read_text().strip(), "last good"
        for folder in sorted(self.places.bundle.glob("*")):
            if (folder / CONTRACT).is_file():
                yield folder.name, folder, "bundle"

    def _fall_back(self, pipeline: str, folder: Path, source: str) -> None:
        slot = self._slot(pipeline)
        delivered = folder / "online.db" if source == "bundle" else None
        online = partial(self._stores.of, file=delivered)
        try:
            slot.current = load(folder, version=None, source=source, online=online)
        except Exception as error:  # the next fallback, or the registry's return, may still do: recorded
            slot.trouble = f"the {source} model did not load: {error}"
            logger.exception("the %s model of %s did not load", source, pipeline)
            return
        self.on_swap(pipeline, None, slot.current)

    def _slot(self, pipeline: str) -> Slot:
        return self.slots.setdefault(pipeline, Slot())

    def _away(self, why: str) -> None:
        if self.trouble is None:
            logger.warning("the registry cannot be asked; serving goes on: %s", why)
        self.trouble = why

    def _registry_away(self) -> bool:
        return self.trouble is not None and (not self._answered or time.monotonic() - self._answered > _PATIENCE)

    def _run(self) -> None:
        while not self._stop.wait(self.poll_seconds):
            self._turn()

    def _turn(self) -> None:
        """Follow the registry once, whatever it answers."""
        try:
            self.follow()
        except Exception as error:  # neither the start nor the thread may end by it: recorded, and asked again
            self._away(f"following it failed with {type(error).__name__}; the service's log says more")
            logger.exception("following the registry failed")


def keep(home: Home, pipeline: str, folder: Path, note: VersionNote) -> None:
    """Copy a package to where the service starts from when the registry is away; whole, or not at all."""
    place = home.last_good(pipeline)
    name = f"{note.version}-{note.fingerprint[:16]}"
    for part in (GRAPH, CONTRACT):
        atomic_bytes(place / name / part, (folder / part).read_bytes())
    atomic_bytes(place / name / VERSION, note.model_dump_json().encode())
    atomic_bytes(place / "current", name.encode())
    others = [entry for entry in place.iterdir() if entry.is_dir() and entry.name != name]
    for old in sorted(others, key=lambda entry: entry.stat().st_mtime)[: -(_KEPT - 1)]:
        shutil.rmtree(old, ignore_errors=True)


def _same(model: Model, ref: ChampionRef) -> bool:
    return model.version == ref.version and model.contract.fingerprint == ref.fingerprint
