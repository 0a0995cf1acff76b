"""The command line: names, options and help; each verb's work is imported when it is called."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ferroflow.cli.features import features_app
from ferroflow.cli.options import HomeOption, JsonOption, Pipeline, PipelineOption
from ferroflow.cli.options import home_of as _home
from ferroflow.cli.options import moment_of as _moment
from ferroflow.cli.options import settings_of as _settings

app = typer.Typer(
    help="A machine-learning pipeline described once, in one folder, and kept right by Prefect.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models_app = typer.Typer(help="Registered models: what serves, since when and why.", no_args_is_help=True)
datasets_app = typer.Typer(help="Snapshots of raw data and what became of them.", no_args_is_help=True)
quarantine_app = typer.Typer(help="Rows that were refused, with their reasons and raw values.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(datasets_app, name="datasets")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(features_app, name="features")


@app.command()
def demo(
    home: HomeOption = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Use the simulator even when real data is at hand.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the whole loop: dirty files, training, serving, drift, and a model that repairs itself."""
    from ferroflow.demo.show import run_demo

    run_demo(_settings(home, simulate=simulate or None), as_json=as_json)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The new pipeline's name: lower-case letters, digits, underscores.")],
    file: Annotated[Path, typer.Option("--from", help="CSV, TSV, NDJSON, Parquet, Arrow or Excel; also packed.")],
    target: Annotated[str | None, typer.Option("--target", help="The column to predict.")] = None,
    time: Annotated[
        str | None, typer.Option("--time", help="When a row happened; none: at no time. [default: looked for]")
    ] = None,
    entity: Annotated[
        str | None, typer.Option("--entity", help="What rows are about: its last week's mean becomes a feature.")
    ] = None,
    positive: Annotated[str | None, typer.Option("--positive", help="The class to predict.")] = None,
    columns: Annotated[str | None, typer.Option("--columns", help="Names for a CSV file without: a,b,c.")] = None,
    into: Annotated[
        Path | None, typer.Option("--into", help="Folder of pipelines. [default: FERROFLOW_PIPELINES or pipelines/]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a pipeline of that name.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: take the safe choice.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a whole pipeline folder from a data file; it runs at once."""
    from ferroflow.cli.new import make_pipeline
    from ferroflow.scaffold.new import Wanted

    named = tuple(part.strip() for part in columns.split(",")) if columns else ()
    wanted = Wanted(name, file, target, time, entity, positive, named, into, force, dry_run)
    make_pipeline(wanted, yes, as_json)


@app.command()
def run(
    pipeline: Pipeline,
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="The moment to run for. [default: the spec's, or the present hour]")
    ] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", min=0.05, help="Time for tuning and training.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    simulate: Annotated[bool, typer.Option("--simulate", help="Use the pipeline's simulator, off-line.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take one pipeline from its raw files to a served model."""
    from ferroflow.cli.run import run_pipeline

    run_pipeline(_settings(home, simulate=simulate or None), pipeline, _moment(as_of), minutes, dry_run, as_json)


@app.command()
def up(home: HomeOption = None) -> None:
    """Start Prefect, a worker with every deployment, the MLflow UI and the prediction service, on loopback."""
    from ferroflow.cli.stack import up as start

    start(_settings(home))


@app.command()
def down(home: HomeOption = None) -> None:
    """Stop what `up` started."""
    from ferroflow.cli.stack import down as stop

    stop(_settings(home))


@app.command()
def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Say what runs, where, and which model serves."""
    from ferroflow.cli.stack import status as tell

    tell(_settings(home), as_json)


@app.command()
def explain(
    prediction_id: Annotated[str, typer.Argument(help="An id from a prediction's answer.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell where one prediction came from: its inputs, features, model and lineage."""
    from ferroflow.cli.explain import explain as tell

    tell(_home(home), prediction_id, as_json)


@models_app.command("list")
def models_list(pipeline: PipelineOption = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List registered versions, with their aliases and errors."""
    from ferroflow.cli.models import list_models

    list_models(_home(home), pipeline, as_json)


@models_app.command("history")
def models_history(pipeline: Pipeline, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show the deployment ledger: what served when, and why."""
    from ferroflow.cli.models import history

    history(_home(home), pipeline, as_json)


@models_app.command("rollback")
def models_rollback(
    pipeline: Pipeline,
    why: Annotated[str, typer.Option("--why", help="Kept in the ledger.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve the version that served before the present one."""
    from ferroflow.cli.models import rollback

    rollback(_home(home), pipeline, why, as_json)


@datasets_app.command("list")
def datasets_list(pipeline: PipelineOption = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List snapshots."""
    from ferroflow.cli.datasets import list_datasets

    list_datasets(_home(home), pipeline, as_json)


@datasets_app.command("show")
def datasets_show(
    pipeline: Pipeline,
    fingerprint: Annotated[str, typer.Argument(help="A snapshot's fingerprint, or the beginning of one.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a snapshot: files, checksums, schema, rows."""
    from ferroflow.cli.datasets import show_dataset

    show_dataset(_home(home), pipeline, fingerprint, as_json)


@datasets_app.command("diff")
def datasets_diff(
    pipeline: Pipeline,
    new: Annotated[str, typer.Argument(help="A snapshot's fingerprint, the beginning of one, or latest.")] = "latest",
    old: Annotated[
        str | None, typer.Option("--against", help="The snapshot to compare with. [default: the one before]")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what differs between two snapshots: files, columns, refusals, distributions."""
    from ferroflow.cli.datasets import diff_datasets

    diff_datasets(_home(home), pipeline, old, new, as_json)


@datasets_app.command("as-of")
def datasets_as_of(
    pipeline: Pipeline,
    moment: Annotated[str, typer.Argument(help="2023-04-01 or 2023-04-01T04:00 (UTC unless an offset is given).")],
    out: Annotated[Path | None, typer.Option("--out", help="Write its accepted rows to this Parquet file.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell which snapshot was the newest at a moment."""
    from ferroflow.cli.datasets import dataset_as_of

    dataset_as_of(_home(home), pipeline, _moment(moment) or datetime.now(UTC), out, as_json)


@datasets_app.command("prune")
def datasets_prune(
    pipeline: Pipeline,
    keep: Annotated[int, typer.Option("--keep", min=1, help="So many of the newest snapshots stay.")] = 10,
    older_than: Annotated[
        str | None, typer.Option("--older-than", help="Younger ones stay too: 90d. [default: only --keep counts]")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove old snapshots and what was made of them, never what a registered model needs."""
    from ferroflow.cli.datasets import prune_datasets

    prune_datasets(_home(home), pipeline, keep, older_than, dry_run, yes, as_json)


@datasets_app.command("verify")
def datasets_verify(pipeline: PipelineOption = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Read every file that has a checksum, and name those whose bytes changed."""
    from ferroflow.cli.datasets import verify_datasets

    verify_datasets(_home(home), pipeline, as_json)


@quarantine_app.command("list")
def quarantine_list(pipeline: PipelineOption = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Count refused rows by reason, with examples; name files that could not be read."""
    from ferroflow.cli.quarantine import list_quarantine

    list_quarantine(_home(home), pipeline, as_json)


@quarantine_app.command("show")
def quarantine_show(
    pipeline: Pipeline,
    reason: Annotated[str | None, typer.Option("--reason", help="Only rows with this text in a reason.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="How many rows. [default: 20; all with --csv]")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write raw cells to this file, for `fix --from`.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show refused rows with their raw values."""
    from ferroflow.cli.quarantine import show_quarantine

    show_quarantine(_home(home), pipeline, reason, limit, as_json, csv)


@quarantine_app.command("fix")
def quarantine_fix(
    pipeline: Pipeline,
    row: Annotated[
        list[str] | None, typer.Option("--row", help="A row_id, as `show` tells it; may be given again.")
    ] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="All rows with this text in a reason.")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="COLUMN=VALUE of the raw row; an empty VALUE is missing.")
    ] = None,
    maps: Annotated[
        list[str] | None, typer.Option("--map", help="COLUMN:OLD=NEW, only where the raw cell is OLD.")
    ] = None,
    line: Annotated[str | None, typer.Option("--line", help="The whole raw line of one --row of a text file.")] = None,
    edited: Annotated[Path | None, typer.Option("--from", help="A file that `show --csv` wrote, edited.")] = None,
    why: Annotated[str, typer.Option("--why", help="Kept with the correction.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and record nothing.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Correct raw values of refused rows; the raw files stay as they are, `replay` uses the corrections."""
    from ferroflow.cli.quarantine import fix_quarantine

    fix_quarantine(
        _home(home), pipeline, row or [], reason, sets or [], maps or [], line, edited, why, dry_run, as_json
    )


@quarantine_app.command("replay")
def quarantine_replay(
    pipeline: Pipeline,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would move, and keep nothing.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Validate again, with the corrections and the present schema: mended rows move into a new snapshot, once."""
    from ferroflow.cli.quarantine import replay_quarantine

    replay_quarantine(_home(home), pipeline, dry_run, as_json)


@quarantine_app.command("prune")
def quarantine_prune(
    pipeline: Pipeline,
    older_than: Annotated[str, typer.Option("--older-than", help="Rows that came longer ago: 90d.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove the raw values of old refused rows for good; accepted rows, counts and reasons stay."""
    from ferroflow.cli.quarantine import prune_quarantine

    prune_quarantine(_home(home), pipeline, older_than, dry_run, yes, as_json)


def main() -> None:
    """The console script: an error of ours is one line and its own exit code."""
    from ferroflow.core.errors import FerroflowError

    try:
        app()
    except FerroflowError as error:
        typer.secho(f"{type(error).__name__}: {error}", fg="red", err=True)
        sys.exit(error.exit_code)
