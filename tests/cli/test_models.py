from __future__ import annotations

import json
from pathlib import Path

import pytest

from ferroflow.adapters import pipelines, registry
from ferroflow.adapters.home import Home
from ferroflow.cli.models import history, list_models, rollback
from ferroflow.core.errors import NotFound, UnknownPipeline
from tests.toy_model import deployed

NAME = pipelines.names()[0]


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("models") / "home")
    for number in (1, 2):
        deployed(home, number, name=NAME, trials=0)
    return home


def test_versions_are_listed_with_their_alias_and_error(used: Home, capsys: pytest.CaptureFixture[str]) -> None:
    list_models(used, None, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert [(row["version"], row["aliases"]) for row in told] == [("1", []), ("2", ["champion"])]
    list_models(used, NAME, as_json=False)
    shown = capsys.readouterr().out
    assert "champion" in shown and "1.25 rmse" in shown and "5.5" in shown


def test_rollback_is_told_and_then_in_the_history(used: Home, capsys: pytest.CaptureFixture[str]) -> None:
    rollback(used, NAME, "the [red] one was wrong", as_json=False)
    assert "version 1 serves again (was 2): the [red] one was wrong" in capsys.readouterr().out.replace("\n", " ")
    history(used, NAME, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert [line["action"] for line in told] == ["promoted", "promoted", "rolled back"]
    history(used, NAME, as_json=False)
    assert "rolled back" in capsys.readouterr().out
    with pytest.raises(NotFound, match="served before 1"):
        rollback(used, NAME, "again", as_json=True)


def test_an_alias_that_was_moved_elsewhere_is_told_by_the_history(
    used: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    history(used, NAME, as_json=False)
    assert "moved outside" not in capsys.readouterr().out
    before = registry.aliases(NAME, used)["champion"]
    other = "1" if before == "2" else "2"
    registry.set_alias(NAME, "champion", other, used)
    history(used, NAME, as_json=False)
    told = capsys.readouterr().out.replace("\n", " ")
    assert f"The champion's alias points to version {other}, moved outside the ledger." in told
    registry.set_alias(NAME, "champion", before, used)


def test_an_empty_home_says_what_to_do_and_stays_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = Home(tmp_path / "empty")
    list_models(empty, None, as_json=False)
    history(empty, NAME, as_json=False)
    assert capsys.readouterr().out.count("ferroflow run") == 2
    assert not empty.root.exists()


def test_an_unknown_pipeline_is_told_by_every_verb(used: Home) -> None:
    for call in (
        lambda: list_models(used, "nobody", as_json=True),
        lambda: history(used, "nobody", as_json=True),
        lambda: rollback(used, "nobody", "?", as_json=True),
    ):
        with pytest.raises(UnknownPipeline, match="No pipeline 'nobody'"):
            call()
