"""The logs of runs, as lines on a screen."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from rich.console import Console


class _Lines(logging.Handler):
    """Prefect's run logs as lines on the screen, with the time since the start."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console
        self._begun = datetime.now(UTC)

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line: when, which station, what."""
        passed = (datetime.now(UTC) - self._begun) // timedelta(seconds=1)
        colour = {logging.WARNING: "yellow", logging.ERROR: "red"}.get(record.levelno, "default")
        station = getattr(record, "task_run_name", None) or getattr(record, "flow_run_name", None) or record.name
        self._console.print(f"[dim]{passed:4d} s  {station:24}[/dim] ", end="", highlight=False)
        self._console.print(record.getMessage(), style=colour, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def on_screen(console: Console, *, quiet: bool = False) -> Iterator[None]:
    """While inside, the runs' logs go to the screen (standard error), and nowhere when ``quiet``."""
    from prefect.logging.configuration import setup_logging

    handler: logging.Handler = logging.NullHandler() if quiet else _Lines(console)
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs", "ferroflow", "models")]
    setup_logging()  # done here, so that it does not undo what follows
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def hand_over(seconds: float = 10.0) -> None:
    """Send what this process still holds of logs and events; to be called before the Prefect server is stopped.

    Left to the end of the process, Prefect would ask the absent server again and again for a minute.
    """
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=seconds)
