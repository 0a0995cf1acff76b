"""The text of a pipeline's files, as a person would write them."""

from __future__ import annotations

import math
from datetime import datetime

import polars as pl

from ferroflow.scaffold.checks import Cell
from ferroflow.scaffold.code import Group, Node, call, comment, identifiers, laid, literal, said, several
from ferroflow.scaffold.features import Features, features_of
from ferroflow.scaffold.plan import Clock, Plan


def files_of(plan: Plan, pattern: str) -> dict[str, str]:
    """File name → text; ``pattern`` says where the data file is found."""
    features = features_of(plan)
    texts = {"__init__.py": "", "schema.py": _schema(plan)}
    if plan.clock and plan.clock.moment.kind != "utc":
        texts["derive.py"] = _derive(plan, plan.clock)
    if features.names:
        texts["features.py"] = features.text
    return {**texts, "spec.py": _spec(plan, pattern, features)}


def class_name(plan: Plan) -> str:
    """The schema's class."""
    return "".join(word.capitalize() for word in plan.name.split("_")) + "Row"


# --------------------------------------------------------------------------------------------------------------- schema


def _schema(plan: Plan) -> str:
    names = identifiers([*plan.cells, *([plan.clock.moment.derived] if plan.clock else [])])
    fields = [line for cell in plan.cells.values() for line in _field(cell, names[cell.name])]
    derived = plan.clock.moment.derived if plan.clock else None
    added = derived is not None and derived not in plan.cells
    if added:
        told = call("Field", title='"Time"', description='"When it happened, UTC."')
        fields += ["", *laid(f"{derived}: _Utc = ", told, "", 4)]
    kinds = [
        f"{alias} = pl.Datetime({unit})"
        for alias, unit in _DATETIMES
        if any(f": {alias} = " in line for line in fields)
    ]
    said_added = ", then the derived one" if added else ""
    return "\n".join(
        [
            f'"""What a row of {_in_docstring(plan.layout.path.name)} must be: the one truth about its columns."""',
            "",
            "import pandera.polars as pa",
            "import polars as pl",
            "from pandera.polars import Field",
            *(["", *kinds] if kinds else []),
            "",
            "",
            f"class {class_name(plan)}(pa.DataFrameModel):",
            f'    """One row: the columns of the file{said_added}. Bounds have room beyond what the file holds."""',
            "",
            *fields,
            "",
        ]
    )


_DATETIMES = (("_Utc", '"us", "UTC"'), ("_WallClock", '"us"'))


def _field(cell: Cell, name: str) -> list[str]:
    kind = f"pl.{cell.type}"
    if isinstance(cell.type, pl.Datetime):
        kind = "_Utc" if cell.type.time_zone else "_WallClock"
    named: dict[str, Node] = {} if name == cell.name else {"alias": literal(cell.name)}
    named |= {check: _value(value) for check, value in cell.checks.items()}
    named |= {"title": literal(cell.title), "description": literal(cell.said)}
    return laid(f"{name}: {kind} = ", call("Field", **named), "", 4)


def _value(value: object) -> Node:
    return several(map(literal, value), "[]") if isinstance(value, list) else literal(value)


def _in_docstring(text: str) -> str:
    """A name inside a documentation string."""
    return said(text).replace("\\", "/").replace('"', "'")


# --------------------------------------------------------------------------------------------------------------- derive


def _derive(plan: Plan, clock: Clock) -> str:
    moment = clock.moment
    column = literal(moment.column)
    notes = ["The file's clock is taken for UTC: where it is another, convert it here."]
    if moment.kind == "epoch" or moment.form.endswith(("z", "UTC")):
        notes = []
    if moment.ambiguous:
        first = "day" if moment.form.startswith("%d") else "month"
        notes.append(f"Day and month could be the other way round: the {first} is taken to come first.")
    lines = [f'    """Add ``{moment.derived}``; what is no time becomes null, and its row is quarantined.']
    lines = [f'{lines[0]}"""'] if not notes else [*lines, "", *(f"    {note}" for note in notes), '    """']
    if moment.hour is None:
        body = laid("return ", call("rows.with_columns", **{moment.derived: moment.code(column)}), "", 4)
    else:
        hours = f"pl.duration(hours=pl.col({literal(moment.hour)}))"
        body = [f"    day = {moment.code(column)}"]
        body += laid("return ", call("rows.with_columns", **{moment.derived: f"day + {hours}"}), "", 4)
    return "\n".join(
        [
            '"""The event time of a row."""',
            "",
            "from __future__ import annotations",
            "",
            "from collections.abc import Mapping",
            "",
            "import polars as pl",
            "",
            "",
            "def derive(rows: pl.LazyFrame, references: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:",
            *lines,
            *body,
            "",
        ]
    )


# ----------------------------------------------------------------------------------------------------------------- spec


def _spec(plan: Plan, pattern: str, features: Features) -> str:
    derived = plan.clock is not None and plan.clock.moment.kind != "utc"
    parts = _parts(plan, pattern, features)
    body = [line for part in parts for line in part]
    words = {"PipelineSpec", *(word for line in body for word in _NAMES if f"{word}(" in line)}
    imports = [*sorted(word for word in words if word.isupper()), *sorted(word for word in words if not word.isupper())]
    given = ["from __future__ import annotations", ""]
    if plan.clock is not None and plan.clock.replay:
        given += ["from datetime import UTC, datetime", ""]
    given += _imported("ferroflow.core.spec", [*imports])
    given += [f"from pipelines.{plan.name}.derive import derive"] if derived else []
    given += _imported(f"pipelines.{plan.name}.features", sorted(features.names)) if features.names else []
    given += [f"from pipelines.{plan.name}.schema import {class_name(plan)}"]
    title = f"Predict {_in_docstring(plan.target.column)} from {_in_docstring(plan.layout.path.name)}"
    return "\n".join(
        [
            f'"""{title}: the table of contents of this pipeline."""',
            "",
            *given,
            "",
            "pipeline = PipelineSpec(",
            *body,
            ")",
            "",
        ]
    )


_NAMES = (
    "MLP", "Baseline", "BeatsBaseline", "BeatsChampion", "Boosting", "ByTime", "Classification", "Glob", "Holdout",
    "InputDrift", "NoWorseSlice", "Performance", "Regression", "Replace", "Retrain", "RowCount", "Schedules", "Source",
    "Skew",
    "Staleness",
)  # fmt: skip


def _imported(module: str, names: list[str]) -> list[str]:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= 120:
        return [line]
    return [f"from {module} import (", *(f"    {name}," for name in names), ")"]


def _parts(plan: Plan, pattern: str, features: Features) -> list[list[str]]:
    clock, roles, target = plan.clock, plan.roles, plan.target

    def entry(name: str, node: Node) -> list[str]:
        return laid(f"{name}=", node, ",", 4)

    inputs = [*([clock.moment.derived] if clock else []), *roles.inputs]
    parts = [
        entry("name", literal(plan.name)),
        entry("description", literal(f"Predict {target.column} from {plan.layout.path.name}.")),
        entry("source", _source(plan, pattern)),
    ]
    if target.spelt:
        mapping = several((f"{literal(was)}: {literal(now)}" for was, now in target.spelt), "{}")
        parts.append(entry("cleaning", several([call("Replace", literal(target.column), mapping)])))
    if clock and clock.moment.kind != "utc":
        parts.append(["    derive=derive,"])
    parts += [
        [f"    schema={class_name(plan)},"],
        [f"    rules=(RowCount(at_least={literal(_rounded(plan.rows / 2))}),),"],
        comment(
            "What is known when a prediction is asked for, and nothing else: no file shows that, so look it through.", 4
        ),
        entry("inputs", several(map(literal, inputs))),
        _left_out(plan),
        _personal(plan),
        entry("categorical", several(map(literal, roles.categorical))) if roles.categorical else [],
        entry("features", several(features.names)) if features.names else [],
        entry("target", _target(plan)),
        ["    candidates=(Boosting(), MLP()),"],
        entry("baseline", call("Baseline", by=several(map(literal, plan.baseline)))) if plan.baseline else [],
        entry("split", _split(plan)),
        entry("gates", _gates(plan)),
        entry("monitors", _monitors(clock)),
        entry("retrain", _retrain(plan)),
        ["    schedules=Schedules(ingest=None),"],
    ]
    if clock and clock.replay:
        told = "The data end here: a run looks at them as if it were this moment. Remove it when new rows come in."
        parts += [comment(told, 4), entry("as_of", _moment(clock.end))]
    return parts


def _source(plan: Plan, pattern: str) -> Group:
    layout = plan.layout
    named: dict[str, Node] = {"files": call("Glob", pattern=literal(pattern))}
    if not layout.told:
        named["format"] = literal(layout.format)
    if layout.columns:
        named["columns"] = several(map(literal, layout.columns))
    if layout.format == "csv" and layout.separator != ",":
        named["separator"] = literal(layout.separator)
    if plan.clock:
        named["time"] = literal(plan.clock.moment.derived)
    if len(plan.null_values) > 1:
        named["null_values"] = several(map(literal, plan.null_values))
    return call("Source", **named)


def _left_out(plan: Plan) -> list[str]:
    """Why columns are left out: those of one reason together, in the file's order."""
    if not plan.left_out:
        return []
    by_reason: dict[str, list[str]] = {}
    for column, why in plan.left_out.items():
        by_reason.setdefault(why, []).append(said(column))
    lines = comment("Left out of the inputs:", 4)
    for why, columns in by_reason.items():
        lines += comment(f"- {', '.join(columns)}: {why}.", 4)
    return lines


def _personal(plan: Plan) -> list[str]:
    if not plan.personal:
        return []
    told = "About people, by the shape of their cells: what quarantine, pages and logs show of them is ***."
    return [*comment(told, 4), *laid("personal=", several(map(literal, plan.personal)), ",", 4)]


def _target(plan: Plan) -> Group:
    target, told = plan.target, plan.roles.known_with
    kind = "Regression" if target.regression else "Classification"
    named: dict[str, Node] = {} if target.positive is None else {"positive": literal(target.positive)}
    if told:
        named["known_with"] = several(map(literal, told))
    return call(kind, literal(target.column), **named)


def _split(plan: Plan) -> Group:
    if plan.clock is None:
        return call("Holdout", validation="0.2", test="0.2")
    return call("ByTime", validation=literal(plan.clock.validation), test=literal(plan.clock.test))


def _gates(plan: Plan) -> Group:
    gates = ["BeatsBaseline()", "BeatsChampion()"]
    return several([*gates, f"NoWorseSlice({literal(plan.slices)})"] if plan.slices else gates)


def _monitors(clock: Clock | None) -> Group:
    if clock is None:
        return several(["Skew()", "InputDrift()", 'Staleness("365d")'])
    window = "7d" if clock.days > 100 else "1d"
    return several(
        ["Skew()", "InputDrift()", f'Performance(window="{window}")', f'Staleness("{max(1, round(clock.days / 4))}d")']
    )


def _retrain(plan: Plan) -> Group:
    enough = literal(max(30, _rounded(plan.rows / 50)))
    if plan.clock is None:
        return call("Retrain", cooldown='"1d"', min_new_rows=enough)
    clock = plan.clock
    spans = {"window": clock.train, "validation": clock.validation, "holdout": clock.test}
    return call("Retrain", cooldown='"1d"', min_new_rows=enough, **{key: literal(span) for key, span in spans.items()})


def _rounded(value: float) -> int:
    size: int = 10 ** max(0, math.floor(math.log10(max(value, 1))))
    return max(1, round(value / size)) * size


def _moment(moment: datetime) -> str:
    fields = [moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second]
    while len(fields) > 3 and fields[-1] == 0:
        fields.pop()
    return f"datetime({', '.join(map(str, fields))}, tzinfo=UTC)"
