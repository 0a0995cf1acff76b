"""``ferroflow new``: questions at the terminal, and what was decided."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import typer
from rich.console import Console

from ferroflow.scaffold.ask import Question, nobody, safe_choice
from ferroflow.scaffold.new import Made, Wanted, new_pipeline, summary

_MANY = 0.03


def make_pipeline(wanted: Wanted, yes: bool, as_json: bool) -> None:
    """Write the folder and say what was decided.

    Raises:
        UsageError: something has to be asked, and nobody can be.
    """
    can_ask = sys.stdin.isatty() and not as_json
    ask = safe_choice if yes else _at_terminal if can_ask else nobody
    made = new_pipeline(wanted, now=datetime.now(UTC), ask=ask)
    if as_json:
        Console().print_json(data=summary(made, _next(made, wanted)))
    else:
        _print(made, wanted)


def _at_terminal(question: Question) -> str:
    for number, choice in enumerate(question.choices, 1):
        typer.echo(f"  {number:3} {choice}", err=True)
    while True:
        answer = str(typer.prompt(question.text, default=question.safe, err=True)).strip()
        if not question.choices or answer in question.choices:
            return answer
        if answer.isdigit() and 1 <= int(answer) <= len(question.choices):
            return question.choices[int(answer) - 1]
        typer.echo(f"{answer!r} is none of them.", err=True)


def _next(made: Made, wanted: Wanted) -> list[str]:
    name = made.plan.name
    lines = [] if made.known else [f"export FERROFLOW_PIPELINES={made.folder.parent}"]
    return lines if wanted.dry_run else [*lines, f"ferroflow run {name} --dry-run", f"ferroflow run {name}"]


def _print(made: Made, wanted: Wanted) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    if wanted.dry_run:
        for name, text in made.files.items():
            console.print(f"# ---- {made.folder / name}\n{text}")
    decided = made.plan
    seen = made.accepted + made.quarantined
    looked = "" if seen == decided.rows else f" (a sample of {decided.rows:,})"
    console.print(f"{seen:,} rows{looked} = {made.accepted:,} accepted + {made.quarantined:,} quarantined")
    for reason, count in list(made.reasons.items())[:5]:
        console.print(f"  {count:,} × {reason}")
    if made.quarantined > _MANY * seen:
        console.print(f"That is {made.quarantined / seen:.1%}: look at the reasons, and mend the file or schema.py.")
    left_out = " Left out:" if decided.left_out else ""
    console.print(f"{decided.target.column!r} is learnt from {len(decided.roles.inputs)} columns.{left_out}")
    for column, why in decided.left_out.items():
        console.print(f"  {column}: {why}")
    verb = "Nothing was written. This would be" if wanted.dry_run else "Written:"
    console.print(f"{verb} {made.folder} ({', '.join(made.files)})")
    for line in _next(made, wanted):
        console.print(f"  {line}")
