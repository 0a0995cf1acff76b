"""What the verbs of ``ferroflow features`` do: a table, one feature, a page, and a measurement."""

from __future__ import annotations

from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

import typer

from ferroflow.adapters import pipelines
from ferroflow.adapters.home import Home
from ferroflow.cli.datasets import plain, print_whole, tell
from ferroflow.core.catalogue import Catalogue, FeatureEntry, Freshness, PipelineFeatures, Values, spoken
from ferroflow.core.errors import NotFound
from ferroflow.stations.catalogue import catalogue


def list_features(home: Home, pipeline: str | None, as_of: datetime | None, as_json: bool) -> None:
    """Print every model input in a line.

    Raises:
        UnknownPipeline: no pipeline of that name.
    """
    found = known(home, pipeline, as_of)
    if as_json:
        tell(found.model_dump(mode="json"))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("pipeline", "feature", "kind", "type", "owner", "age"):
        table.add_column(column, no_wrap=True)
    for column in ("missing", "lately", "importance"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("used by", no_wrap=True)
    for part in found.pipelines:
        for entry in part.features:
            table.add_row(*(Text(plain(cell)) for cell in _line(part, entry)))
    console = Console()
    print_whole(console, table)
    for part in found.pipelines:
        for line in _notes(part):
            console.print(plain(line), markup=False, soft_wrap=True)


def show_feature(home: Home, pipeline: str, name: str, as_of: datetime | None, as_json: bool) -> None:
    """Print all that is known of one feature.

    Raises:
        UnknownPipeline: no pipeline of that name.
        NotFound: it has no such feature, or several.
    """
    part = known(home, pipeline, as_of).pipelines[0]
    entry = find(part, name)
    if as_json:
        tell(entry.model_dump(mode="json"))
        return
    from rich.console import Console

    console = Console()
    for told, value in _facts(part, entry):
        if value:
            console.print(f"{told:<13}{plain(value)}", markup=False, highlight=False, soft_wrap=True)


def write_page(home: Home, pipeline: str | None, as_of: datetime | None, as_json: bool) -> None:
    """Write the page of one pipeline, or of all, among the reports; print its path.

    Raises:
        UnknownPipeline: no pipeline of that name.
    """
    from ferroflow.adapters.catalogue_page import ALL, PAGE, write_catalogue_page

    found = known(home, pipeline, as_of)
    path = home.reports(pipeline or ALL) / PAGE
    write_catalogue_page(path, found)
    if as_json:
        tell({"page": str(path), "features": len(found.features)})
    else:
        typer.echo(str(path))


def measure_importance(home: Home, pipeline: str, as_json: bool) -> None:
    """Measure the champion's inputs and print them, the strongest first.

    Raises:
        UnknownPipeline: no pipeline of that name.
        NotFound: it has no champion.
        RegistryError: the registry is away, or the champion's rows are gone.
    """
    from ferroflow.stations.importance import measure

    found = measure(pipelines.load(pipeline), home)
    if as_json:
        tell(found.model_dump(mode="json"))
        return
    typer.echo(
        f"{pipeline} version {found.version}: {found.metric} {found.error:.4g} on {found.rows:,} test rows grows by"
    )
    for name, growth in sorted(found.growth.items(), key=lambda entry: -entry[1]):
        typer.echo(f"{growth:+10.4g}  {name}")


def backfill_features(home: Home, pipeline: str, span: tuple[datetime | None, datetime | None], as_json: bool) -> None:
    """Bring a span of every stored view online, and print how many entities got a row.

    Raises:
        UnknownPipeline: no pipeline of that name.
        UsageError: the span ends before it begins.
        NotFound: the pipeline has no stored features, or they were never computed for that time.
    """
    from ferroflow.stations.materialize import backfill

    spec, (start, end) = pipelines.load(pipeline), span
    if not spec.stored or start is None or end is None:
        raise NotFound(f"Pipeline {pipeline!r} has no stored features: nothing of it is kept online.")
    written = backfill(spec, start, end, home)
    if as_json:
        tell({"pipeline": pipeline, "from": start.isoformat(), "to": end.isoformat(), "entities": written})
        return
    for view, entities in written.items():
        typer.echo(f"{view}: {entities:,} entities, available from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC")


def known(home: Home, pipeline: str | None, as_of: datetime | None) -> Catalogue:
    """The catalogue of one pipeline or of all, as of the moment or each pipeline's own clock.

    Raises:
        UnknownPipeline: no pipeline of that name.
    """
    from flows.parameters import clock

    specs = [pipelines.load(name) for name in ([pipeline] if pipeline else pipelines.names())]
    now = datetime.now(UTC)
    return catalogue(specs, {spec.name: as_of or clock(spec, now) for spec in specs}, home)


def find(part: PipelineFeatures, name: str) -> FeatureEntry:
    """The feature of that name: as the model sees it, as ``view.feature``, or the feature alone where it is one only.

    Raises:
        NotFound: there is none, or several.
    """
    by_name = {entry.name: entry for entry in part.features}
    if (exact := by_name.get(name) or by_name.get(name.replace(".", "__", 1))) is not None:
        return exact
    ends = [entry for entry in part.features if entry.name.endswith(f"__{name}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        listed = ", ".join(entry.name for entry in ends)
        raise NotFound(f"Pipeline {part.pipeline!r} has several features {name!r}: {listed}. Name one of them.")
    close = get_close_matches(name, [*by_name, *(each.rpartition("__")[2] for each in by_name)], n=3, cutoff=0.5)
    hint = f" Did you mean {', '.join(dict.fromkeys(close))}?" if close else ""
    raise NotFound(
        f"Pipeline {part.pipeline!r} has no feature {name!r}.{hint} "
        f"See them: ferroflow features list -p {part.pipeline}"
    )


def _line(part: PipelineFeatures, entry: FeatureEntry) -> list[str]:
    return [
        entry.pipeline,
        entry.name,
        entry.kind,
        entry.dtype,
        entry.owner or "–",
        _age(entry.freshness),
        f"{entry.training.missing_share:.1%}" if entry.training else "–",
        f"{entry.logged.missing_share:.1%}" if entry.logged else "–",
        "–" if entry.importance is None else f"{entry.importance:+.3g}",
        ", ".join(entry.used_by) or ("–" if part.uses_known else "not known"),
    ]


def _age(fresh: Freshness | None) -> str:
    if fresh is None:
        return "–"
    if fresh.stale:
        return "stale" if fresh.age_seconds is None else f"{spoken(fresh.age_seconds)}, stale"
    return spoken(fresh.age_seconds or 0.0)


def _notes(part: PipelineFeatures) -> list[str]:
    """What the table cannot say."""
    notes = []
    if part.models_problem:
        notes.append(f"{part.pipeline}: which models use what is not known: {part.models_problem}")
    notes += [
        f"{part.pipeline}: {model.alias} {model.version}: {model.problem}" for model in part.models if model.problem
    ]
    if any(model.alias == "champion" for model in part.models) and part.importances is None:
        notes.append(
            f"{part.pipeline}: importance is not measured. Measure it: ferroflow features measure {part.pipeline}"
        )
    stale = {entry.view: entry.freshness.stale for entry in part.features if entry.freshness and entry.freshness.stale}
    problems = {entry.view: entry.freshness.problem for entry in part.features if entry.freshness}
    notes += [f"{part.pipeline}: {view} is stale: {why}" for view, why in stale.items()]
    return notes + [f"{part.pipeline}: {view}, online store: {why}" for view, why in problems.items() if why]


def _facts(part: PipelineFeatures, entry: FeatureEntry) -> list[tuple[str, str]]:
    longest = "" if entry.ttl_seconds is None else spoken(entry.ttl_seconds)
    unused = "no model" if part.uses_known else f"not known: {part.models_problem}"
    return [
        ("feature", f"{part.pipeline} {entry.name}"),
        ("", entry.description or "no description"),
        ("owner", entry.owner or "nobody"),
        ("kind", f"{entry.kind}, {entry.dtype}"),
        ("view", entry.view),
        ("entity", f"{entry.entity}, looked up by {entry.on}" if entry.entity else ""),
        ("window", entry.window),
        ("usable for", longest),
        ("depends on", ", ".join(entry.depends_on)),
        *_fresh(entry.freshness),
        ("missing", _missing(part, entry)),
        ("values", _values(entry.training)),
        ("importance", _importance(part, entry)),
        ("used by", ", ".join(entry.used_by) or unused),
    ]


def _fresh(fresh: Freshness | None) -> list[tuple[str, str]]:
    if fresh is None:
        return [("age", "computed at each request")]
    moments: list[tuple[str, Any, str]] = [
        ("available", fresh.available_at, "" if fresh.age_seconds is None else f", {spoken(fresh.age_seconds)} old"),
        ("ingested", fresh.ingested_at, ""),
        ("online to", fresh.online_until, ""),
    ]
    told = [(name, f"{at:%Y-%m-%d %H:%M} UTC{more}") for name, at, more in moments if at is not None]
    return [*told, ("stale", fresh.stale), ("online store", fresh.problem)]


def _missing(part: PipelineFeatures, entry: FeatureEntry) -> str:
    told = []
    if entry.training:
        told.append(f"{entry.training.missing_share:.2%} of {entry.training.rows:,} rows of table {part.table}")
    if entry.logged:
        told.append(f"{entry.logged.missing_share:.2%} of {entry.logged.rows:,} predictions lately")
    return "; ".join(told) or "not known: no training table and no predictions"


def _values(found: Values | None) -> str:
    if found is None:
        return ""
    if found.hidden:
        return "personal: not shown"
    if found.top is not None:
        return f"most often {found.top} ({found.top_rows / max(found.rows, 1):.1%})"
    return "all missing" if found.mean is None else f"{found.low:.4g} to {found.high:.4g}, mean {found.mean:.4g}"


def _importance(part: PipelineFeatures, entry: FeatureEntry) -> str:
    if part.importances is None:
        return f"not measured. Measure it: ferroflow features measure {part.pipeline}"
    if entry.importance is None:
        return f"version {part.importances.version} does not use it"
    metric = f"{part.importances.metric} {part.importances.error:.4g}"
    return f"{entry.importance:+.4g} on {metric} when its values are shuffled (version {part.importances.version})"
