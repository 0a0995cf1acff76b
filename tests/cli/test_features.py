from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ferroflow.adapters import pipelines, registry
from ferroflow.adapters.home import Home
from ferroflow.cli import catalogue as verbs
from ferroflow.cli.main import app
from ferroflow.core.errors import NotFound, UnknownPipeline
from ferroflow.stations.features import refresh_offline
from tests import rides, toy_model

WINDOWED = next(name for name in pipelines.names() if pipelines.load(name).stored)
VIEW = pipelines.load(WINDOWED).stored[0].name


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with a champion of the toy pipeline."""
    home = Home(tmp_path_factory.mktemp("features") / "home")
    toy_model.deployed(home, 1, trials=0)
    return home


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy pipeline can be asked for by its name."""
    monkeypatch.setattr(pipelines, "load", lambda name: toy_model.spec())
    monkeypatch.setattr(pipelines, "names", lambda: ["toy"])


def told(home: Home, *arguments: str) -> str:
    done = CliRunner().invoke(app, ["features", *arguments, "--home", str(home.root)])
    assert done.exit_code == 0, done.exception
    return done.stdout


def test_every_pipelines_features_are_listed_from_an_empty_home_which_stays_empty(home: Home) -> None:
    listed = json.loads(told(home, "list", "--json"))
    assert [part["pipeline"] for part in listed["pipelines"]] == pipelines.names()
    shown = told(home, "list", "-p", WINDOWED)
    assert f"{VIEW}__" in shown and f"{WINDOWED}: {VIEW} is stale: never computed" in shown
    assert not home.root.exists()


@pytest.mark.usefixtures("toy")
def test_importance_is_not_measured_until_somebody_asks_for_it(served: Home) -> None:
    assert "Measure it: ferroflow features measure toy" in told(served, "list")
    assert "not measured" in told(served, "show", "toy", "distance")
    assert "distance" in told(served, "measure", "toy").splitlines()[1]
    measured = json.loads(told(served, "measure", "toy", "--json"))
    entry = json.loads(told(served, "show", "toy", "distance", "--json"))
    assert entry["importance"] == measured["growth"]["distance"] > 0
    assert "measure toy" not in told(served, "list")


@pytest.mark.usefixtures("toy")
def test_without_the_champions_package_nothing_is_said_to_be_used_by_no_model(served: Home) -> None:
    package = served.absolute(registry.version("toy", "1", served).package) / "serving.json"
    aside = package.rename(package.with_suffix(".aside"))
    try:
        shown, listed = told(served, "show", "toy", "distance"), told(served, "list")
    finally:
        aside.rename(package)
    assert "no model" not in shown and "the inputs of champion 1 cannot be read" in shown
    assert "toy: which models use what is not known: the inputs of champion 1 cannot be read" in listed
    assert "toy: champion 1: its package" in listed


@pytest.mark.usefixtures("toy")
def test_one_feature_is_shown_whole_and_found_by_its_short_name(served: Home) -> None:
    shown = told(served, "show", "toy", "zone_mean.mean", "--as-of", "2023-03-01")
    assert shown == told(served, "show", "toy", "mean", "--as-of", "2023-03-01")
    assert "zone, looked up by zone" in shown and "never computed" in shown and "champion 1" in shown
    assert "2h" in shown


def test_a_name_that_fits_several_or_none_is_told_with_what_there_is(home: Home) -> None:
    part = verbs.known(home, WINDOWED, None).pipelines[0]
    name = next(entry.name for entry in part.features if entry.view == VIEW)
    short = name.removeprefix(f"{VIEW}__")
    with pytest.raises(NotFound, match=f"has no feature '{name[:-1]}'. Did you mean {name}"):
        verbs.find(part, name[:-1])
    with pytest.raises(NotFound, match=f"several features '{short}': {name}, "):
        verbs.find(part, short)
    with pytest.raises(NotFound, match="ferroflow features list -p"):
        verbs.find(part, "zzzzzz")
    with pytest.raises(UnknownPipeline, match="No pipeline 'nobody'"):
        verbs.known(home, "nobody", None)


def test_the_page_lies_where_the_service_finds_it(home: Home) -> None:
    from serving.reports import page_of

    one = Path(told(home, "page", "-p", WINDOWED).strip())
    every = Path(json.loads(told(home, "page", "--json"))["page"])
    for path in (one, every):
        found = page_of(home, f"/reports/{path.parent.name}/{path.name}")
        assert found is not None and f"{VIEW}__".encode() in found
    assert one != every and every.parent.name not in pipelines.names() and not every.parent.name.isidentifier()


def test_a_span_is_brought_online_again_and_bad_spans_are_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rides.simulate(40)
    refresh_offline(rides.pipeline(), rides.accept(home, rows), rides.START + timedelta(days=6), home)
    monkeypatch.setattr(pipelines, "load", lambda name: rides.pipeline())
    day = ["--from", "2023-01-02", "--to", "2023-01-03T00:00"]
    entities = json.loads(told(home, "backfill", "rides", *day, "--json"))["entities"]
    assert set(entities) == {"departures", "arrivals"} and all(entities.values())
    assert "departures: " in told(home, "backfill", "rides", *day)
    for wrong, why in (
        (["--from", "soon", "--to", "2023-01-03"], "--from 'soon'"),
        ([day[2], day[1], day[0], day[3]], "Swap"),
    ):
        done = CliRunner().invoke(app, ["features", "backfill", "rides", *wrong, "--home", str(home.root)])
        assert done.exit_code != 0
        assert why in str(done.exception)
