"""Options that several verbs share, and what is made of them; nothing heavy is imported before a verb is called."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ferroflow.adapters.home import Home
    from ferroflow.adapters.settings import Settings

HomeOption = Annotated[
    Path | None, typer.Option("--home", help="The folder of all state. [default: .ferroflow or FERROFLOW_HOME]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Pipeline = Annotated[str, typer.Argument(help="A pipeline's name: a folder below pipelines/.")]
PipelineOption = Annotated[str | None, typer.Option("--pipeline", "-p", help="Only this pipeline.")]


def settings_of(home: Path | None, **overrides: object) -> Settings:
    """The settings, with those that were given on the command line."""
    from ferroflow.adapters.settings import load_settings

    return load_settings(home=home, **overrides)


def home_of(home: Path | None) -> Home:
    """The home folder that is meant."""
    from ferroflow.adapters.home import Home

    return Home.of(settings_of(home))


def moment_of(text: str | None, option: str = "--as-of") -> datetime | None:
    """Read ``2023-04-01`` or ``2023-04-01T04:00`` (UTC unless an offset is given).

    Raises:
        UsageError: it is no moment.
    """
    from ferroflow.core.errors import UsageError

    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} {text!r} is no moment. Write 2023-04-01 or 2023-04-01T04:00.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
