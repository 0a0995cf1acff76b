"""The Python files that verdicts on rows come from: whoever edits one of them has all rows judged anew."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from ferroflow.core.fingerprint import file_digest
from ferroflow.core.spec import PipelineSpec

_INSTALLED = ("site-packages", "dist-packages")


def sources(spec: PipelineSpec) -> list[str]:
    """The SHA-256 of each file, whatever it is called.

    They are the files of the pipeline's folder, of the schema's classes, of ``derive``, and those that these import.
    What is installed, Python's own modules and Ferroflow are left out: they change with a version, not with an edit.
    Something that was made in a shell stands here by its name alone.
    """
    things = [*spec.schema.__mro__, *([_unwrapped(spec.derive)] if spec.derive is not None else [])]
    found = {thing.__module__: _text(thing) for thing in things if _file(sys.modules.get(thing.__module__)) is None}
    found = {name: text for name, text in found.items() if not _is_foreign(name)}
    waiting = [thing.__module__ for thing in things if thing.__module__ not in found]
    folder = _file(sys.modules.get(f"pipelines.{spec.name}.spec"))
    if folder is not None:
        found |= {path.relative_to(folder.parent).as_posix(): file_digest(path) for path in folder.parent.rglob("*.py")}
    while waiting:
        name = waiting.pop()
        path = None if name in found or _is_foreign(name) else _file(_module(name))
        if path is not None:
            found[name] = file_digest(path)
            waiting += [name.rpartition(".")[0], *_imported(path, name)]
    return sorted(set(found.values()))


def _unwrapped(derive: Any) -> Any:
    while isinstance(derive, partial):
        derive = derive.func
    return derive if hasattr(derive, "__module__") else type(derive)


def _text(thing: Any) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", repr(thing))


def _is_foreign(name: str) -> bool:
    top = name.partition(".")[0]
    if top == "ferroflow" or (top in sys.stdlib_module_names and top != "__main__"):
        return True
    origin = _origin(_module(top))  # of the whole package, so that nothing is loaded only to be looked at
    return origin is not None and not {*origin.parts}.isdisjoint(_INSTALLED)


def _module(name: str) -> ModuleType | Any | None:
    """The module, or where one that is not loaded yet would be loaded from."""
    if name in sys.modules:
        return sys.modules[name]
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # what a name was imported from is no package
        return None


def _origin(module: ModuleType | Any | None) -> Path | None:
    origin = getattr(module, "__file__", None) or getattr(module, "origin", None)
    return Path(origin) if origin else None


def _file(module: ModuleType | Any | None) -> Path | None:
    path = _origin(module)
    return path if path is not None and path.suffix == ".py" and path.is_file() else None


def _imported(path: Path, name: str) -> Iterator[str]:
    """The modules that a file's import statements may name, wherever in it they stand."""
    module = _module(name)
    package = getattr(module, "__package__", None) or getattr(module, "parent", None) or ""
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:  # whoever imports it is told; its digest is known already
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (entry.name for entry in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{entry.name}" for entry in node.names)
