"""Any small table gives a pipeline that takes the table's own rows, or an error that says what is the matter."""

from __future__ import annotations

import csv
import tempfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from ferroflow.core.errors import DataError, UsageError
from ferroflow.scaffold.ask import safe_choice
from ferroflow.scaffold.new import Wanted, new_pipeline

NOW = datetime(2024, 1, 1, tzinfo=UTC)

NAMES = st.one_of(
    st.sampled_from(
        ["y", "class", "a b", "id", "date", "größe", "pl", "_x", "1st", "event_at", 'q"', "it's", "timestamp"]
    ),
    st.text(min_size=1, max_size=8),
)
CELLS = st.sampled_from(
    [
        st.integers(-5, 5),
        st.integers(-(10**18), 10**18),
        st.integers(1_500_000_000, 1_700_000_000),
        st.floats(allow_nan=True, allow_infinity=True),
        st.floats(0, 1),
        st.sampled_from(["yes", "no"]),
        st.sampled_from(["a", "b", "?", "NA", "-", ""]),
        st.booleans(),
        st.dates(date(1990, 1, 1), date(2030, 1, 1)),
        st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1)),
        st.dates(date(2000, 1, 1), date(2020, 1, 1)).map(lambda day: day.strftime("%d/%m/%Y")),
        st.sampled_from(["007", "012", "100"]),
        st.text(max_size=12),
    ]
)


TARGETS = st.sampled_from([st.floats(-100, 100), st.integers(0, 50), st.sampled_from(["yes", "no"]), st.booleans()])


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[Any]]]:
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    rows = draw(st.one_of(st.integers(40, 90), st.integers(0, 90)))
    columns = []
    for place, _ in enumerate(names):
        kind = draw(st.one_of(TARGETS, CELLS) if place == 0 else CELLS)
        some = draw(st.lists(kind, min_size=1, max_size=20))
        dice = draw(st.randoms(use_true_random=False))
        gaps = draw(st.sampled_from([0, 0, 0.1, 0.9]))
        columns.append(["" if dice.random() < gaps else dice.choice(some) for _ in range(rows)])
    return names, [list(row) for row in zip(*columns, strict=True)]


@given(table=tables(), separator=st.sampled_from(",;\t"))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_small_table_gives_a_pipeline_for_its_rows_or_a_clear_error(
    table: tuple[list[str], list[list[Any]]], separator: str
) -> None:
    names, rows = table
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
            csv.writer(file, delimiter=separator).writerows([names, *rows])
        wanted = Wanted("anything", path, target=names[0].strip(), into=Path(folder) / "pipelines")
        try:
            made = new_pipeline(wanted, now=NOW, ask=safe_choice)
        except (UsageError, DataError) as error:
            event(type(error).__name__)
            assert len(str(error)) > 20
            assert not list((Path(folder) / "pipelines").glob("*"))
            return
        event("a pipeline")
        assert (Path(folder) / "pipelines" / "anything" / "spec.py").is_file()
        assert made.accepted + made.quarantined == made.plan.rows
        assert made.quarantined < 0.05 * made.plan.rows
