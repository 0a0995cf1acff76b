"""``ferroflow explain``: one logged prediction, from the request to the deployment that answered it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import orjson
import typer

from ferroflow.adapters.home import Home


def explain(home: Home, prediction_id: str, as_json: bool) -> None:
    """Show a prediction: what was asked, what the model was fed and where that came from, and who answered.

    Raises:
        NotFound: no log knows the id.
    """
    from ferroflow.stations.explain import explanation

    told = explanation(home, prediction_id)
    if as_json:
        typer.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2, default=str).decode())
        return
    _show(told)


def _show(told: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"[bold]{told['pipeline']}[/] version {told['version']} answered [bold]{told['prediction']:.4g}[/]", end=""
    )
    console.print(f" at {_moment(told['at'])}" + (" [yellow](degraded)[/]" if told["degraded"] else ""))
    if told["label"] is not None:
        difference = told["prediction"] - told["label"]
        console.print(
            f"It turned out to be {told['label']:.4g} (told {_moment(told['labelled_at'])}): off by {difference:+.4g}."
        )
    else:
        console.print("What it turned out to be is not known yet.")
    moves = {line["input"]: line for line in told["attribution"]}
    table = Table(title="What the model was fed")
    for column in ("input", "value", "from", "typical", "moves it by"):
        table.add_column(column, justify="left" if column in ("input", "from") else "right", overflow="fold")
    for feature in told["features"]:
        move = moves.get(feature["name"])
        age = f", {_age(feature['age_seconds'])} old" if "age_seconds" in feature else ""
        table.add_row(
            feature["name"],
            _value(feature["value"]),
            feature["from"] + age,
            _value(move["typical"]) if move else "",
            f"{move['change']:+.3g}" if move else "",
        )
    console.print(table)
    if told["deployment"]:
        entry = told["deployment"]
        console.print(f"{str(entry['action']).capitalize()} {entry['at']}: {entry['why']}")
    if told["lineage"]:
        console.print("Lineage: " + " ← ".join(f"{name} {value}" for name, value in reversed(told["lineage"].items())))
    if "note" in told:
        console.print(f"[yellow]{told['note']}[/]")


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _age(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _value(value: Any) -> str:
    if value is None:
        return "missing"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
