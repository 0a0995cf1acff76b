"""Find pipelines by their folder: ``pipelines/<name>/spec.py`` holds ``pipeline = PipelineSpec(...)``.

``FERROFLOW_PIPELINES`` names more folders (joined like ``PATH``) that hold such folders.
"""

from __future__ import annotations

import importlib
import os
from difflib import get_close_matches
from pathlib import Path

from ferroflow.core.errors import SpecError, UnknownPipeline
from ferroflow.core.spec import PipelineSpec

VARIABLE = "FERROFLOW_PIPELINES"


def folders() -> list[Path]:
    """The folders that are looked through: the package's own, then those of ``FERROFLOW_PIPELINES``."""
    # Found by name, not imported by statement: adapters and pipelines do not know each other.
    path = importlib.import_module("pipelines").__path__
    for extra in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        place = str(Path(extra).expanduser().absolute())
        if place not in path:
            path.append(place)
            importlib.invalidate_caches()
    return [Path(place) for place in path]


def names() -> list[str]:
    """The names of all pipelines, sorted."""
    return sorted({spec.parent.name for folder in folders() for spec in folder.glob("*/spec.py")})


def load(name: str) -> PipelineSpec:
    """The description of the pipeline in the folder ``name``.

    Raises:
        UnknownPipeline: there is no such folder.
        SpecError: the folder's ``spec.py`` has no ``pipeline``, or one of another name.
    """
    known = names()
    if name not in known:
        raise UnknownPipeline(_unknown(name, known))
    module = importlib.import_module(f"pipelines.{name}.spec")
    spec = getattr(module, "pipeline", None)
    if not isinstance(spec, PipelineSpec):
        raise SpecError(f"pipelines/{name}/spec.py has no 'pipeline'. Write there: pipeline = PipelineSpec(...)")
    if spec.name != name:
        raise SpecError(f"pipelines/{name}/spec.py describes {spec.name!r}. Give it the folder's name: name={name!r}.")
    return spec


def _unknown(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else f" Create pipelines/{name}/ or run: ferroflow run --help"
    return f"No pipeline {name!r}. Known: {', '.join(known) or 'none'}.{hint}"
