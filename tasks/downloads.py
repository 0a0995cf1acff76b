"""How far a download is, told in few lines."""

from __future__ import annotations

from collections.abc import Callable

from ferroflow.adapters.sources.download import Progress

_STEP = 50 * 2**20  # bytes between two lines, where no size was announced


def told_by(say: Callable[[str], None]) -> Progress:
    """A ``Progress`` that says one line for each tenth of a file."""
    reached: dict[str, int] = {}

    def progress(name: str, have: int, total: int | None) -> None:
        step = have * 10 // total if total else have // _STEP
        if step > reached.get(name, 0):
            reached[name] = step
            share = f" of {total / 2**20:,.1f} MiB ({have / total:.0%})" if total else " MiB"
            say(f"{name}: {have / 2**20:,.1f}{share}")

    return progress
