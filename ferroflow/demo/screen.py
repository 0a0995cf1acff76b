"""What the demonstration prints, and how long each beat of it takes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table


class Screen:
    """A rich console with numbered beats; ``seconds`` keeps their wall times."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}
        self._begin = time.perf_counter()

    @contextmanager
    def beat(self, key: str, title: str) -> Iterator[None]:
        """One beat: a headline now, its wall time when it is over."""
        self.console.rule(f"[bold cyan]{len(self.seconds) + 1}. {title}", align="left")
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[key] = round(time.perf_counter() - begin, 2)
            self.console.print(f"[dim]   {self.seconds[key]:.1f} s[/dim]")

    @property
    def total(self) -> float:
        """Seconds since the screen was made."""
        return round(time.perf_counter() - self._begin, 2)

    def say(self, text: str) -> None:
        """A line of the story."""
        self.console.print(f"   {text}", highlight=False)

    def announce(self, text: str) -> None:
        """Something happens to the world: said aloud."""
        self.console.print(Panel(text, border_style="yellow", expand=False))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A small table; numbers stand to the right."""
        table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2))
        for place, column in enumerate(columns):
            numeric = bool(rows) and isinstance(rows[0][place], int | float)
            table.add_column(column, justify="right" if numeric else "left")
        for row in rows:
            table.add_row(*[_cell(value) for value in row])
        self.console.print(table)

    def promises(self, kept: Mapping[str, tuple[bool, str]]) -> None:
        """The scorecard: each promise, whether it was kept, and the number behind it."""
        self.console.rule("[bold cyan]Scorecard", align="left")
        for name, (passed, number) in kept.items():
            mark = "[green]✓[/green]" if passed else "[bold red]✗[/bold red]"
            self.console.print(f" {mark} {name}: [bold]{number}[/bold]", highlight=False)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
