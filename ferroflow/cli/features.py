"""``ferroflow features``: the verbs of the feature catalogue; each one's work is imported when it is called."""

from __future__ import annotations

from typing import Annotated

import typer

from ferroflow.cli.options import HomeOption, JsonOption, Pipeline, PipelineOption, home_of, moment_of

features_app = typer.Typer(
    help="The feature catalogue: whose a feature is, what it means, how fresh it is, who uses it.",
    no_args_is_help=True,
)

AsOfOption = Annotated[
    str | None,
    typer.Option("--as-of", help="The moment that ages count to. [default: the pipeline's clock]"),
]


@features_app.command("list")
def features_list(
    pipeline: PipelineOption = None,
    as_of: AsOfOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List model inputs with owner, age, missing share and importance."""
    from ferroflow.cli.catalogue import list_features

    list_features(home_of(home), pipeline, moment_of(as_of), as_json)


@features_app.command("show")
def features_show(
    pipeline: Pipeline,
    name: Annotated[str, typer.Argument(help="A feature: hour, zone_hour__trips, or zone_hour.trips.")],
    as_of: AsOfOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show all that is known of one feature."""
    from ferroflow.cli.catalogue import show_feature

    show_feature(home_of(home), pipeline, name, moment_of(as_of), as_json)


@features_app.command("page")
def features_page(
    pipeline: PipelineOption = None,
    as_of: AsOfOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the catalogue as one HTML page and print where it lies."""
    from ferroflow.cli.catalogue import write_page

    write_page(home_of(home), pipeline, moment_of(as_of), as_json)


@features_app.command("measure")
def features_measure(pipeline: Pipeline, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Measure how much the champion's error grows when an input's values are shuffled, and keep it."""
    from ferroflow.cli.catalogue import measure_importance

    measure_importance(home_of(home), pipeline, as_json)


@features_app.command("backfill")
def features_backfill(
    pipeline: Pipeline,
    start: Annotated[str, typer.Option("--from", help="What became available from this moment on.")],
    end: Annotated[str, typer.Option("--to", help="Up to this moment, included.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring stored features of a span online once more; values of later moments stay, and so do the watermarks."""
    from ferroflow.cli.catalogue import backfill_features

    moments = moment_of(start, "--from"), moment_of(end, "--to")
    backfill_features(home_of(home), pipeline, moments, as_json)
