"""The two pipelines without entities, on their real files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from ferroflow.adapters.pipelines import load
from ferroflow.core.cells import cell
from ferroflow.core.contract import Field
from ferroflow.core.errors import LeakageError
from ferroflow.core.spec import SourceFile


def read(name: str, file: SourceFile, mirror: Path) -> pl.DataFrame:
    """Rows of a file, cast by the schema and derived, as validation sees them."""
    spec = load(name)
    header = not spec.source.columns
    raw = pl.scan_csv(
        mirror / file.mirror,
        infer_schema=False,
        has_header=header,
        skip_rows=file.skip_rows,
        new_columns=None if header else list(spec.source.columns),
    )
    types = {key: column.dtype.type for key, column in spec.schema.to_schema().columns.items()}
    names = [key for key in raw.collect_schema() if key in types]
    numbers = [pl.col(key).str.strip_chars().cast(types[key]) for key in names if types[key] != pl.String]
    labelled = raw.with_columns(numbers).with_columns(pl.lit(file.label).alias("source_label"))
    return spec.derive(labelled, {}).collect()  # type: ignore[misc]


@pytest.mark.data
def test_every_hour_of_bike_rentals_fits_the_schema(mirror: Path) -> None:
    spec = load("bikes")
    rows = read("bikes", spec.source.files.files(None, None)[0], mirror).drop("source_label")  # type: ignore[arg-type]
    assert len(spec.schema.validate(rows, lazy=True)) == 17_379
    assert rows["hour_at"].is_unique().all()


@pytest.mark.parametrize("column", ["casual", "registered", "cnt"])
def test_parts_of_the_rental_count_are_refused_as_inputs(column: str) -> None:
    spec = load("bikes")
    with pytest.raises(LeakageError, match=column):
        replace(spec, inputs=(*spec.inputs, column))


def test_rentals_that_do_not_add_up_are_refused() -> None:
    import pandera.errors

    from pipelines.bikes.derive import derive
    from pipelines.bikes.schema import RentalHour

    types = {name: column.dtype.type for name, column in RentalHour.to_schema().columns.items() if name != "hour_at"}
    cells = dict.fromkeys(types, 1) | {"dteday": "2011-01-01", "temp": 0.5, "casual": 3, "registered": 4, "cnt": 7.0}
    good = derive(pl.LazyFrame([cells], schema=types), {}).collect()
    assert len(RentalHour.validate(good, lazy=True)) == 1
    with pytest.raises(pandera.errors.SchemaErrors, match="counts_add_up"):
        RentalHour.validate(good.with_columns(cnt=pl.lit(8.0)), lazy=True)


@pytest.mark.data
def test_census_files_are_one_spelling_with_nulls_for_question_marks(mirror: Path) -> None:
    spec = load("income")
    train, test = (read("income", file, mirror) for file in spec.source.files.files(None, None))  # type: ignore[arg-type]
    for rows, people in ((train, 32_561), (test, 16_281)):
        told = rows.filter(pl.col("age").is_not_null())  # each file ends in a blank line
        assert len(spec.schema.validate(told, lazy=True)) == people == len(rows) - 1
        assert set(told["income"]) == {"<=50K", ">50K"}
        texts = told.select(pl.selectors.string())
        assert not texts.select(pl.any_horizontal(pl.all().str.contains(r"^\s|\?|\s$").fill_null(False)).any()).item()
    assert train["occupation"].null_count() == 1_843 + 1


@pytest.mark.parametrize("text", [" Private", "Private", " ?", "?", "", " Self-emp-inc "])
def test_request_means_what_the_same_cell_of_the_census_files_means(text: str) -> None:
    from pipelines.income.derive import TEXT, derive

    cells = dict.fromkeys(TEXT, "x") | {"workclass": text}
    told = derive(pl.LazyFrame([cells]), {}).collect()["workclass"][0]
    asked = cell(Field(name="workclass", type="text", nullable=True), text, load("income").source.null_values)
    assert asked == (told or None)
