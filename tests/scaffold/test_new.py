"""What ``ferroflow new`` sees in a file, and what it does when it cannot see."""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ferroflow.adapters import pipelines
from ferroflow.core.errors import DataError, EmptySource, UsageError
from ferroflow.core.spec import Glob
from ferroflow.scaffold.ask import Question, nobody, safe_choice
from ferroflow.scaffold.new import Made, Wanted, new_pipeline

NOW = datetime(2024, 1, 1, tzinfo=UTC)
ROWS = 400
DICE = random.Random(3)
SIZE = [DICE.gauss(0, 3) for _ in range(ROWS)]
KIND = [DICE.choice(["flat", "house", "hut"]) for _ in range(ROWS)]
PRICE = [10 + 2 * size + DICE.random() for size in SIZE]
DAYS = [date(2022, 1, 1) + timedelta(days=day) for day in range(ROWS)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of pipelines that is looked through, and forgotten afterwards."""
    folder = tmp_path / "pipelines"
    monkeypatch.setenv(pipelines.VARIABLE, str(folder))
    yield folder
    path = importlib.import_module("pipelines").__path__
    if str(folder) in path:
        path.remove(str(folder))


def made_of(place: Path, name: str = "table.csv", ask: object = safe_choice, **columns: list[object]) -> Made:
    """A pipeline for ``price`` beside ``size`` and ``kind``; ``columns`` are added, ``target`` and such asked for."""
    asked = {key: columns.pop(key) for key in ("target", "time", "entity", "positive", "dry_run") if key in columns}
    frame = pl.DataFrame({"size": SIZE, "kind": KIND, "price": PRICE, **columns})
    path = place.parent / name
    frame.write_parquet(path) if name.endswith("parquet") else frame.write_csv(path)
    wanted = Wanted("trial", path, **{"target": "price", **asked})  # type: ignore[arg-type]
    return new_pipeline(wanted, now=NOW, ask=ask)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------- left out


@pytest.mark.parametrize(
    ("column", "why"),
    [
        ([3 * size + 1 for size in SIZE], "the same as size"),
        ([kind.upper() for kind in KIND], "the same as kind"),
        (["x"] * ROWS, "the same value"),
        ([None] * ROWS, "no value"),
        ([f"u{row * 7919 % 100_003}" for row in range(ROWS)], "identifier"),
        (list(range(500, 500 + ROWS)), "identifier"),
        ([f"{DICE.random()} and {row} more words to read" for row in range(ROWS)], "free text"),
        ([price * 60 for price in PRICE], "is a linear function of price"),
        ([price**3 for price in PRICE], "follows from it"),
    ],
)
def test_a_column_of_no_use_is_left_out_with_the_reason(place: Path, column: list[object], why: str) -> None:
    made = made_of(place, other=column)
    assert made.plan.roles.inputs == ("size", "kind")
    assert why in made.plan.left_out["other"]
    assert made.plan.left_out["other"] in made.files["spec.py"].replace("\n    # ", " ")


def test_a_column_that_is_there_only_for_one_class_tells_the_target(place: Path) -> None:
    left = [price > 12 for price in PRICE]
    reason = [DICE.choice(["price", "service"]) if gone else None for gone in left]
    made = made_of(place, left=left, reason=reason, target="left")
    assert set(made.plan.roles.known_with) == {"reason", "price"}  # the price decides it, at 12


@pytest.mark.parametrize(
    ("name", "cells", "what"),
    [
        ("contact", [f"anna{row % 90}@example.org" for row in range(ROWS)], "e-mail addresses"),
        ("caller", [f"+49 30 {1_000_000 + row % 90}" for row in range(ROWS)], "phone numbers"),
        ("caller", [f"(555) {200 + row % 90}-{1000 + row % 90}" for row in range(ROWS)], "phone numbers"),
        ("phone", [4_915_100_000_000 + row % 90 for row in range(ROWS)], "phone numbers"),
        ("account", [f"DE{10 + row % 90}370400440532013000" for row in range(ROWS)], "bank accounts"),
    ],
)
def test_what_is_about_people_is_masked_and_not_learnt_from(
    place: Path, name: str, cells: list[object], what: str
) -> None:
    made = made_of(place, **{name: [None, *cells[1:]]})
    assert pipelines.load("trial").personal == (name,)
    assert made.plan.roles.inputs == ("size", "kind")
    assert what in made.plan.left_out[name]
    assert not any(str(cell)[-7:] in text for cell in cells[1:] for text in made.files.values())


@pytest.mark.parametrize(
    "cells",
    [
        [f"{day:%Y-%m-%d}" for day in DAYS],
        [f"192.168.100.{row % 200}" for row in range(ROWS)],
        [f"{10_000 + row % 90}-{1_000 + row % 90}" for row in range(ROWS)],
        [1_640_995_200 + 86_400 * row for row in range(ROWS)],
        [round(DICE.gauss(0, 1e9), 2) for _ in range(ROWS)],
    ],
)
def test_dates_codes_and_numbers_are_about_nobody(place: Path, cells: list[object]) -> None:
    assert made_of(place, other=cells).plan.personal == {}


def test_parts_of_a_total_tell_it_even_with_a_few_exceptions(place: Path) -> None:
    tip, toll = ([DICE.random() for _ in range(ROWS)] for _ in range(2))
    cost = [DICE.random() * (row % 7) for row in range(ROWS)]
    total = [one + two - three for one, two, three in zip(tip, toll, cost, strict=True)]
    made = made_of(place, tip=tip, toll=toll, cost=cost, total=[9.0, *total[1:]], target="total")
    assert made.plan.roles.known_with["cost"] == "tip + toll - cost is total in 99% of the rows"
    assert set(made.plan.roles.known_with) == {"tip", "toll", "cost"}


def test_the_file_is_found_from_any_folder(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made_of(place)
    assert pipelines.load("trial").source.files == Glob(pattern=(tmp_path / "table.csv").as_posix())


# ------------------------------------------------------------------------------------------------------------- cells


def test_what_means_nothing_among_numbers_may_mean_something_among_texts(place: Path) -> None:
    area = [DICE.choice(["?", "n/a"]) if row % 9 == 0 else str(row % 50) for row in range(ROWS)]
    country = [DICE.choice(["NA", "DE", "IS"]) for _ in range(ROWS)]
    made = made_of(place, area=area, country=country)
    assert made.plan.null_values == ("", "?", "n/a")
    assert made.plan.cells["area"].type == pl.Int64
    assert made.plan.cells["area"].checks["nullable"] is True
    assert made.plan.cells["country"].checks["isin"] == ["DE", "IS", "NA"]


def test_a_few_broken_cells_are_quarantined_and_make_no_text_of_a_number(place: Path) -> None:
    made = made_of(place, area=["oops" if row == 7 else str(row % 50) for row in range(ROWS)])
    assert (made.accepted, made.quarantined) == (ROWS - 1, 1)


def test_codes_keep_their_leading_zeros(place: Path) -> None:
    made = made_of(place, zip=[f"0{1000 + row % 20}" for row in range(ROWS)])
    assert made.plan.cells["zip"].type == pl.String
    assert "zip" in made.plan.roles.categorical


def test_a_number_that_the_target_does_not_run_with_is_a_name(place: Path) -> None:
    zone = [DICE.randrange(6) for _ in range(ROWS)]
    price = [price + (20 if at in (1, 4) else 0) for price, at in zip(PRICE, zone, strict=True)]
    rooms = [DICE.randrange(6) for _ in range(ROWS)]
    dear = [price + 5 * many for price, many in zip(price, rooms, strict=True)]
    made = made_of(place, zone=zone, rooms=rooms, dear=dear, target="dear")
    assert "zone" in made.plan.roles.categorical
    assert "rooms" not in made.plan.roles.categorical


def test_names_that_python_cannot_write_are_kept_in_the_request(place: Path) -> None:
    odd = {name: [DICE.random() for _ in range(ROWS)] for name in ["größe in m²", "class", "pl", "empty", "_x", '1"st']}
    made = made_of(place, **odd)
    spec = pipelines.load("trial")
    assert set(odd) < set(spec.inputs)
    assert set(odd) < set(spec.schema.to_schema().columns)
    assert made.quarantined == 0


# -------------------------------------------------------------------------------------------------------------- time


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("table.csv", [day.strftime("%d/%m/%Y") for day in DAYS]),
        ("table.csv", [day.strftime("%m/%d/%Y") for day in DAYS]),
        ("table.csv", [f"{day:%Y-%m-%d}T10:30:00+02:00" for day in DAYS]),
        ("table.csv", [1_640_995_200 + 86_400 * row for row in range(ROWS)]),
        ("table.parquet", [1_000 * (1_640_995_200 + 86_400 * row) for row in range(ROWS)]),
        ("table.parquet", DAYS),
        ("table.parquet", [datetime(day.year, day.month, day.day) for day in DAYS]),
        ("table.parquet", [datetime(day.year, day.month, day.day, tzinfo=UTC) for day in DAYS]),
    ],
)
def test_a_time_is_found_in_any_form_and_splits_the_rows(place: Path, name: str, column: list[object]) -> None:
    made = made_of(place, name, timestamp=column)
    clock = made.plan.clock
    assert clock is not None
    assert clock.first.date() == DAYS[2]  # the earliest half per cent may be mistakes
    assert clock.end.date() == DAYS[-1] + timedelta(days=1)
    assert (clock.test, clock.validation) == ("60d", "60d")
    assert made.quarantined == 0


def test_of_two_times_the_earlier_is_taken_and_the_other_left_out(place: Path) -> None:
    made = made_of(place, ended=[day + timedelta(days=3) for day in DAYS], begun=DAYS)
    assert made.plan.clock is not None
    assert made.plan.clock.moment.column == "begun"
    assert "afterwards" in made.plan.left_out["ended"]


def test_a_number_that_grows_with_time_is_no_input(place: Path) -> None:
    made = made_of(place, day=DAYS, year=[day.year for day in DAYS])
    assert "grows with time" in made.plan.left_out["year"]


def test_an_entity_and_a_time_give_a_stored_feature(place: Path) -> None:
    made = made_of(place, day=DAYS, entity="kind")
    [view] = pipelines.load("trial").stored
    assert (view.name, view.on) == ("kind_week", "kind")
    assert made.plan.entity == "kind"


# ------------------------------------------------------------------------------------------------------------ target


@pytest.mark.parametrize("words", [("yes", "no"), ("1", "0"), ("true", "false"), (">50K", "<=50K")])
def test_the_class_that_says_yes_is_predicted_without_a_question(place: Path, words: tuple[str, str]) -> None:
    dear = [words[price + DICE.gauss(0, 3) < 12] for price in PRICE]
    made = made_of(place, dear=dear, target="dear", ask=nobody)
    assert made.plan.target.positive == words[0]


def test_a_class_spelt_two_ways_is_one_class(place: Path) -> None:
    dear = ["no" if price + DICE.gauss(0, 3) < 12 else DICE.choice(["Yes", "Yes", "yes."]) for price in PRICE]
    made = made_of(place, dear=dear, target="dear")
    assert made.plan.target.classes == ("Yes", "no")
    assert made.quarantined == 0


def test_rows_without_a_target_are_accepted_and_not_learnt_from(place: Path) -> None:
    made = made_of(
        place, late=[None if row % 4 == 0 else PRICE[row] + SIZE[row] ** 2 for row in range(ROWS)], target="late"
    )
    assert made.quarantined == 0


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("kind", "3 classes"),
        ("day", "is a time"),
        ("one", "one value only"),
        ("few", "known in 5 rows"),
        ("nothing", "no column 'nothing'"),
    ],
)
def test_what_cannot_be_learnt_is_refused_with_the_reason(place: Path, target: str, message: str) -> None:
    few = [row if row < 5 else None for row in range(ROWS)]
    with pytest.raises((UsageError, DataError), match=message):
        made_of(place, "table.parquet", day=DAYS, one=[1] * ROWS, few=few, target=target)
    assert not place.exists() or not list(place.iterdir())


# ------------------------------------------------------------------------------------------------- questions, files


def test_nobody_to_ask_names_the_option(place: Path) -> None:
    with pytest.raises(UsageError, match=r"--positive.*--yes for 'hut'"):
        made_of(place, kind=["hut" if row % 5 == 0 else "flat" for row in range(ROWS)], target="kind", ask=nobody)


def test_a_question_is_answered_by_a_person(place: Path) -> None:
    asked: list[Question] = []

    def answer(question: Question) -> str:
        asked.append(question)
        return "flat"

    kind = ["hut" if DICE.random() < 0.2 else "flat" for _ in range(ROWS)]
    made = made_of(place, kind=kind, target="kind", ask=answer)
    assert made.plan.target.positive == "flat"
    assert [(question.option, question.safe) for question in asked] == [("--positive", "hut")]


def test_a_dry_run_writes_nothing(place: Path) -> None:
    made = made_of(place, dry_run=True)
    assert "pipeline = PipelineSpec(" in made.files["spec.py"]
    assert not place.exists()


def test_a_folder_that_is_there_is_only_replaced_by_force(place: Path) -> None:
    made_of(place)
    (place / "trial" / "spec.py").write_text("# mine\n")
    with pytest.raises(UsageError, match="--force"):
        made_of(place)
    assert (place / "trial" / "spec.py").read_text() == "# mine\n"
    wanted = Wanted("trial", place.parent / "table.csv", target="price", force=True)
    new_pipeline(wanted, now=NOW, ask=safe_choice)
    assert "PipelineSpec" in (place / "trial" / "spec.py").read_text()
    assert [path.name for path in place.iterdir()] == ["trial"]


@pytest.mark.parametrize("name", ["Trial", "1st", "class", "a-b", "", "bikes"])
def test_a_name_that_no_folder_can_have_is_refused(place: Path, name: str) -> None:
    with pytest.raises(UsageError, match="name"):
        new_pipeline(Wanted(name, place / "none.csv", target="y"), now=NOW, ask=safe_choice)


@pytest.mark.parametrize(
    ("content", "error"),
    [("", EmptySource), ("a,b\n", EmptySource), ("a,b\n1,2\n2,3\n4,5\n", DataError), ("y\n1\n", DataError)],
)
def test_a_file_with_next_to_nothing_is_refused(place: Path, content: str, error: type[DataError]) -> None:
    path = place.parent / "little.csv"
    path.write_text(content)
    with pytest.raises(error):
        new_pipeline(Wanted("trial", path, target=content[0] if content else "y"), now=NOW, ask=safe_choice)


def test_a_file_without_a_header_is_asked_for_its_names(place: Path) -> None:
    path = place.parent / "nameless.data"
    path.write_text("".join(f"{size};{kind};{price}\n" for size, kind, price in zip(SIZE, KIND, PRICE, strict=True)))
    with pytest.raises(UsageError, match="--columns"):
        new_pipeline(Wanted("trial", path, target="column_3"), now=NOW, ask=nobody)
    made = new_pipeline(Wanted("trial", path, target="price", columns=("size", "kind", "price")), now=NOW, ask=nobody)
    assert (made.plan.layout.separator, made.plan.rows) == (";", ROWS)
    assert made.plan.roles.inputs == ("size", "kind")
