"""What the catalogue says where nobody knows: damaged log lines, models without a package, views without rows."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from ferroflow.adapters import registry
from ferroflow.adapters.catalogue_page import write_catalogue_page
from ferroflow.adapters.home import Home
from ferroflow.adapters.predictions import PredictionLog
from ferroflow.core.catalogue import Catalogue, Importances, PipelineFeatures
from ferroflow.core.errors import RegistryError
from ferroflow.stations.catalogue import catalogue, freshness
from tests.rides import START, pipeline, write_view, write_views
from tests.stations.served_rides import version

AS_OF = START + timedelta(days=4)
IDLE = "used by no model that serves"


@pytest.mark.parametrize("damaged", ["not json", "null", "[1]", '"hour"', ""])
def test_a_damaged_line_of_the_log_is_no_prediction_and_ends_nothing(home: Home, damaged: str) -> None:
    common = {"version": "1", "inputs": "{}", "prediction": 1.0, "degraded": False, "watermarks": "{}"}
    texts = [damaged, '{"hour": null}', '{"hour": 2.0}']
    rows = [
        common | {"id": str(n), "at": AS_OF, "event_time": AS_OF - timedelta(minutes=9 - n), "features": features}
        for n, features in enumerate(texts)
    ]
    PredictionLog(home.predictions("rides")).append(rows)
    part = found(home)
    assert (part.logged, part.logged_since) == (2, AS_OF - timedelta(minutes=8))
    hour = next(entry for entry in part.features if entry.name == "hour")
    assert hour.logged is not None and (hour.logged.rows, hour.logged.missing) == (2, 1)


def stale(home: Home, as_of: datetime) -> str:
    return freshness(pipeline(), as_of, home, online=False)["departures"].stale


def test_a_view_that_was_computed_is_not_called_never_computed(home: Home) -> None:
    assert stale(home, AS_OF) == "never computed"
    write_view(home, "departures", [])
    assert stale(home, AS_OF) == "it has no rows"
    write_views(home)
    assert stale(home, START) == "its first row is of 2023-01-01 01:00 UTC, later than asked for"
    assert stale(home, START + timedelta(hours=2)) == "never brought to the online store"


# -------------------------------------------------------------------------------------------------------------- models


@pytest.fixture
def deployed(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home whose registry has a champion (2) and a challenger (1), both with the package of a real version."""
    known = [version(home, number) for number in ("1", "2")]
    monkeypatch.setattr(registry, "aliases", lambda *_: {"champion": "2", "challenger": "1"})
    monkeypatch.setattr(registry, "versions", lambda *_: known)
    return home


@pytest.fixture(params=["2", "1"])
def gone(deployed: Home, request: pytest.FixtureRequest) -> tuple[Home, str]:
    """The package of the champion (2) or of the challenger (1) is gone."""
    (deployed.packages("rides") / f"model-{request.param}" / "serving.json").unlink()
    return deployed, request.param


def found(home: Home) -> PipelineFeatures:
    [part] = catalogue([pipeline()], AS_OF, home).pipelines
    return part


def drawn(path: Path, *parts: PipelineFeatures) -> str:
    write_catalogue_page(path / "features.html", Catalogue(pipelines=parts))
    return (path / "features.html").read_text()


def test_without_a_package_nobody_says_that_no_model_uses_a_feature(gone: tuple[Home, str], tmp_path: Path) -> None:
    home, number = gone
    part, role = found(home), {"2": "champion", "1": "challenger"}[number]
    assert not part.uses_known and part.models_problem == f"the inputs of {role} {number} cannot be read"
    other = {"2": "challenger 1", "1": "champion 2"}[number]
    assert {entry.used_by for entry in part.features} == {(other,)}, "what is known stays"
    bare = part.model_copy(
        update={"features": tuple(entry.model_copy(update={"used_by": ()}) for entry in part.features)}
    )
    page = drawn(tmp_path, bare)
    assert page.count(">not known</span>") >= len(bare.features) and ">no model<" not in page
    assert not re.search(r'data-state="[^"]*unused', page) and IDLE not in page
    assert f"{role} {number} (its package" in page


def test_a_registry_that_is_away_leaves_the_use_unknown(
    deployed: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> dict[str, str]:
        raise RegistryError("The registry does not answer.")

    known = found(deployed)
    monkeypatch.setattr(registry, "aliases", away)
    page = drawn(tmp_path, found(deployed))
    assert "Models are not known:</span> The registry does not answer." in page
    assert ">no model<" not in page and "unused " not in page and IDLE not in page
    both = drawn(tmp_path, found(deployed), known)
    assert f'>0</strong><span class="soft small">{IDLE}' in both, "of what is known all is used"


def test_where_all_is_known_what_no_model_uses_is_counted(deployed: Home, tmp_path: Path) -> None:
    part = found(deployed)
    first = part.features[0].model_copy(update={"used_by": ()})
    page = drawn(tmp_path, part.model_copy(update={"features": (first, *part.features[1:])}))
    assert page.count(">no model<") == 1 and len(re.findall(r'data-state="[^"]*unused', page)) == 1
    assert f'>1</strong><span class="soft small">{IDLE}' in page


def test_an_input_that_the_measured_model_does_not_take_is_not_called_unmeasured(
    deployed: Home, tmp_path: Path
) -> None:
    part = found(deployed)
    assert ">not measured<" in drawn(tmp_path, part)
    measured = Importances(
        pipeline="rides", version="2", fingerprint="f", metric="rmse", error=1.0, rows=9, repeats=1, seed=0, growth={}
    )
    page = drawn(tmp_path, part.model_copy(update={"importances": measured}))
    assert page.count(">version 2 does not use it<") == len(part.features) and ">not measured<" not in page
