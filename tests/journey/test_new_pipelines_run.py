"""``ferroflow new`` on real files: what it writes runs to a served model without an edit."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from ferroflow.adapters.processes import Stack
from ferroflow.adapters.settings import load_settings

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

ADULT = (
    "age,workclass,fnlwgt,education,education_num,marital_status,occupation,relationship,race,sex,capital_gain,"
    "capital_loss,hours_per_week,native_country,income"
)


@dataclass(frozen=True)
class Made:
    """A pipeline that was made and run: what both commands said."""

    decided: dict[str, Any]
    report: dict[str, Any]


def said(*arguments: str) -> dict[str, Any]:
    """The JSON that a command prints."""
    command = [sys.executable, "-m", "ferroflow", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home and a folder of pipelines that hold nothing else; the files are found without a mirror."""
    folder = tmp_path_factory.mktemp("new")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERROFLOW_HOME", str(folder / "home"))
        patch.setenv("FERROFLOW_PIPELINES", str(folder / "pipelines"))
        patch.delenv("FERROFLOW_MIRROR")
        yield folder


@pytest.fixture(scope="module")
def made(mirror: Path, place: Path) -> dict[str, Made]:
    bikes, adult = str(mirror / "bike_sharing" / "hour.csv"), str(mirror / "adult" / "adult.data")
    asked = {
        "rentals": ("--from", bikes, "--target", "cnt"),
        "adult": ("--from", adult, "--target", "income", "--columns", ADULT),
    }
    decided = {name: said("new", name, *arguments, "--yes") for name, arguments in asked.items()}
    return {name: Made(decided[name], said("run", name, "--minutes", "0.15")) for name in asked}


@pytest.fixture(scope="module")
def address(made: dict[str, Made], place: Path) -> Iterator[str]:
    stack = Stack(load_settings(home=place / "home", service_port=3340))
    stack.start(services=("service",))
    yield stack.addresses["service"]
    stack.stop()


def answer(address: str, name: str, row: dict[str, Any]) -> float:
    asked = httpx.post(f"{address}/v1/{name}/predict", json={"rows": [row]}, timeout=30)
    assert asked.status_code == 200, asked.text
    assert asked.json()["degraded"] is False
    return float(asked.json()["predictions"][0])


def test_the_parts_of_the_target_are_found_and_left_out(made: dict[str, Made]) -> None:
    decided = made["rentals"].decided
    assert decided["known_with"] == {"casual": "casual + registered is cnt", "registered": "casual + registered is cnt"}
    assert not {"casual", "registered", "cnt", "instant"} & set(decided["inputs"])


def test_a_question_mark_is_found_to_mean_that_nothing_is_known(made: dict[str, Made]) -> None:
    assert made["adult"].decided["null_values"] == ["", "?"]
    assert made["adult"].decided["positive"] == ">50K"


def test_a_file_without_names_gets_them(mirror: Path, place: Path) -> None:
    adult = str(mirror / "adult" / "adult.data")
    decided = said("new", "nameless", "--from", adult, "--target", "column_15", "--yes")
    assert decided["null_values"] == ["", "?"]
    assert decided["inputs"][:4] == ["column_1", "column_2", "column_3", "column_4"]
    assert decided["rows"]["in"] == decided["rows"]["accepted"] == 32_561


@pytest.mark.parametrize("name", ["rentals", "adult"])
def test_no_row_is_quarantined_and_the_model_is_promoted(name: str, made: dict[str, Made]) -> None:
    report = made[name].report
    assert report["rows"]["quarantined"] == made[name].decided["rows"]["quarantined"] == 0
    assert report["promoted"] is True


def test_they_come_close_to_what_people_wrote(made: dict[str, Made]) -> None:
    # The hand-written pipelines reach an RMSE of about 60 and a log loss of about 0.28 on their own test rows.
    assert made["rentals"].report["quality"]["test_rmse"] < 90
    assert made["adult"].report["quality"]["test_log_loss"] < 0.30


def test_the_endpoint_answers_for_a_row_of_the_bike_file(made: dict[str, Made], mirror: Path, address: str) -> None:
    with (mirror / "bike_sharing" / "hour.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    row = next(row for row in reversed(rows) if row["hr"] == "17" and row["workingday"] == "1")
    asked: dict[str, Any] = {name: float(row[name]) for name in made["rentals"].decided["inputs"]}
    asked["event_at"] = f"{row['dteday']}T17:00:00Z"
    rush = answer(address, "rentals", asked)
    night = answer(address, "rentals", {**asked, "hr": 3, "event_at": f"{row['dteday']}T03:00:00Z"})
    assert night < rush / 2


def test_the_endpoint_answers_for_a_row_of_the_adult_file(made: dict[str, Made], mirror: Path, address: str) -> None:
    decided = made["adult"].decided
    line = (mirror / "adult" / "adult.data").read_text().splitlines()[0]
    cells = dict(zip(ADULT.split(","), (cell.strip() for cell in line.split(",")), strict=True))
    asked = {
        column: cells[column] if column in decided["categorical"] else float(cells[column])
        for column in decided["inputs"]
    }
    assert 0 < answer(address, "adult", asked) < 1


def test_the_folders_read_like_those_of_the_house(made: dict[str, Made], place: Path) -> None:
    root = Path(__file__).parents[2]
    ruff = Path(sys.executable).with_name("ruff")
    for command in (["format", "--check"], ["check"]):
        asked = [ruff, *command, "--config", root / "pyproject.toml", "--no-cache", place / "pipelines"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert not list((place / "pipelines").glob(".*"))
