"""What it means that a file's columns are not those of the schema: judged by the source's declared policy.

A pure judgement: it changes nothing and raises nothing. The validation renames, adds, quarantines or stops by it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ferroflow.core.sources import Evolution

_ALIKE = 0.8  # difflib's ratio from which two names are worth asking about
_TEXT = ("String", "Categorical", "Enum")
_NO_VALUES = "Null"


@dataclass(frozen=True)
class Evolved:
    """What is to be done with a part, and every difference that was found.

    ``differences`` has one line each: ``= old -> new`` (renamed), ``- fare`` (missing), ``+ tip (Float64)`` (added),
    ``~ zone: Int64 -> Int32`` (came as Int64, the schema wants Int32).
    """

    rename: dict[str, str]  # raw column -> the schema's name
    absent: tuple[str, ...]  # schema columns to be added as nulls before derive
    quarantine: str | None  # why all rows of this part are quarantined
    stop: str | None  # why the run stops: the difference, and the way out
    differences: tuple[str, ...]


@dataclass(frozen=True)
class _Wanted:
    """The schema's columns by name, and the patterns among them."""

    names: dict[str, str]  # name -> type
    patterns: dict[str, str]  # pattern -> type
    required: frozenset[str]  # names and patterns


def judge(columns: Mapping[str, str], schema: Any, derived: Collection[str], policy: Evolution) -> Evolved:
    """Compare the columns that came with the schema's.

    Text cells have no type of their own (each is cast by itself), and a column without a single value (``Null``) has
    nothing that a cast could change: neither counts as re-typed, the second is told all the same.

    Args:
        columns: raw column -> type as text, as in ``Part.columns``.
        schema: a ``pandera.polars.DataFrameModel``.
        derived: columns of the schema that ``derive`` makes: they need not come.
        policy: of the source.
    """
    wanted = _wanted(schema)
    rename, clash = _renamed(columns, wanted, policy.renamed)
    came = {rename.get(name, name): dtype for name, dtype in columns.items()}
    missing = [name for name in _missing(came, wanted) if name not in derived]
    added = [name for name in came if _type(name, wanted) is None]
    other = {name: (dtype, kind) for name, dtype in came.items() if (kind := _other_type(name, dtype, wanted))}
    lines = {
        "missing": [_missing_line(name, added) for name in missing],
        "added": [f"+ {name} ({came[name]})" for name in added],
        "retyped": [f"~ {name}: {dtype} -> {kind}" for name, (dtype, kind) in other.items() if dtype != _NO_VALUES],
    }
    empty = [f"~ {name}: {dtype} -> {kind}" for name, (dtype, kind) in other.items() if dtype == _NO_VALUES]
    policies = {"missing": policy.missing, "added": policy.added, "retyped": policy.retyped}
    stopping = {kind: found for kind, found in lines.items() if found and policies[kind] == "stop"}
    refusing = [line for kind, found in lines.items() if policies[kind] == "quarantine" for line in found]
    goes_on = not (clash or stopping or refusing)
    return Evolved(
        rename=rename,
        absent=tuple(name for name in missing if name in wanted.names) if goes_on else (),
        quarantine=f"columns: {'; '.join(refusing)}" if refusing and not (stopping or clash) else None,
        stop=clash or (_stop(stopping, schema.__name__, list(came)) if stopping else None),
        differences=tuple(chain((f"= {old} -> {new}" for old, new in rename.items()), *lines.values(), empty)),
    )


def _wanted(schema: Any) -> _Wanted:
    names: dict[str, str] = {}
    patterns: dict[str, str] = {}
    required: set[str] = set()
    for name, column in schema.to_schema().columns.items():
        dtype = getattr(column.dtype, "type", None)
        text = "" if dtype is None else str(dtype() if isinstance(dtype, type) else dtype)
        (patterns if column.regex else names)[name] = text
        if column.required:
            required.add(name)
    return _Wanted(names, patterns, frozenset(required))


def _type(name: str, wanted: _Wanted) -> str | None:
    """The schema's type of a column ("": any); None where the schema does not name it."""
    if name in wanted.names:
        return wanted.names[name]
    return next((dtype for pattern, dtype in wanted.patterns.items() if re.match(pattern, name)), None)


def _missing(came: Collection[str], wanted: _Wanted) -> list[str]:
    lone = [name for name in wanted.names if name not in came]
    unmet = [pattern for pattern in wanted.patterns if not any(re.match(pattern, name) for name in came)]
    return [name for name in (*lone, *unmet) if name in wanted.required]


def _other_type(name: str, dtype: str, wanted: _Wanted) -> str | None:
    """The schema's type where a typed column has another one."""
    kind = _type(name, wanted)
    return kind if kind and kind != dtype and not dtype.startswith(_TEXT) else None


def _renamed(
    columns: Mapping[str, str], wanted: _Wanted, declared: Mapping[str, str]
) -> tuple[dict[str, str], str | None]:
    """Declared renamings of columns that came, and the text of a contradiction among them.

    Where the new name came too, the old one is a column of its own.
    """
    rename = {old: new for old, new in declared.items() if old in columns and new not in columns}
    for new in rename.values():
        olds = [old for old, name in rename.items() if name == new]
        if len(olds) > 1:
            return {}, (
                f"{' and '.join(map(repr, olds))} came both, and Evolution(renamed=...) makes {new!r} of each. Take "
                f"out the one that is not {new!r}."
            )
    return rename, None


def _missing_line(name: str, added: Sequence[str]) -> str:
    twin = _alike(name, added)
    return f"- {name}" if twin is None else f"- {name} (renamed? Evolution(renamed={{{twin!r}: {name!r}}}))"


def _alike(name: str, others: Sequence[str]) -> str | None:
    """The one of ``others`` that is spelt nearly like ``name``: case, blanks and underscores do not count."""
    plain = {re.sub(r"[\W_]+", "", other).casefold(): other for other in reversed(others)}
    near = difflib.get_close_matches(re.sub(r"[\W_]+", "", name).casefold(), plain, n=1, cutoff=_ALIKE)
    return plain[near[0]] if near else None


_WAYS_OUT = {
    "missing": "mend the file, make the column Optional[...] in the schema, or let it be null by missing='accept'",
    "added": "name the column in the schema, or leave it out by added='accept'",
    "retyped": "mend the column's type in the schema, or cast cell by cell by retyped='cast'",
}


def _stop(stopping: Mapping[str, Sequence[str]], schema: str, came: Sequence[str]) -> str:
    lines = "; ".join(line for found in stopping.values() for line in found)
    told = f"The columns are not those of {schema}: {lines}."
    if "missing" in stopping:
        told += f" These came: {', '.join(came)}."
    declared = ", ".join(f"{kind}='stop'" for kind in stopping)
    ways = "; ".join(_WAYS_OUT[kind] for kind in stopping)
    return f"{told} Evolution({declared}) ends the run here. Ways out: {ways}."
