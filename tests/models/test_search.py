"""The search: every candidate is tried, the budget holds, a kill costs one trial."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ferroflow.core.errors import ModelError
from ferroflow.core.spec import MLP, Boosting
from models import boosting, search
from models.search import Budget, Search
from tests.models.learnable import fitted

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import sys
from pathlib import Path
from tests.models.learnable import fitted
from ferroflow.core.spec import Boosting
from models.search import Budget, Search
material = fitted(6000)[1]
print("ready", flush=True)
found = Search(Path(sys.argv[1]), [Boosting()], material, Budget(6, 600, 0), lambda line: print(line, flush=True)).run()
print("done", flush=True)
"""


def test_every_candidate_is_tried_and_the_better_one_more_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models import learn

    monkeypatch.setattr(learn, "_EPOCHS", 1)
    lines: list[str] = []
    budget = Budget(trials=5, seconds=120, seed=0)
    found = Search(tmp_path, [MLP(), Boosting()], fitted(600)[1], budget, lines.append).run()
    assert [standing.candidate for standing in found.standings] == ["boosting", "mlp"]
    assert found.standings[0].metrics["rmse"] < found.standings[1].metrics["rmse"]
    assert found.standings[0].trials > found.standings[1].trials >= 1
    assert [trial["number"] for trial in found.trials] == [1, 2, 3, 4, 5]
    assert len(lines) == 5
    assert lines[0].startswith("trial 1/5 mlp rmse ")


def test_first_trial_has_the_default_parameters(tmp_path: Path) -> None:
    found = Search(tmp_path, [Boosting()], fitted(300)[1], Budget(1, 60, 0)).run()
    assert found.trials[0]["params"] == boosting.DEFAULTS


def test_a_budget_of_no_time_still_tries_each_candidate_once(tmp_path: Path) -> None:
    found = Search(tmp_path, [MLP(), Boosting()], fitted(300)[1], Budget(12, 0.0, 0)).run()
    assert [trial["candidate"] for trial in found.trials] == ["mlp", "boosting"]


def test_a_finished_search_is_read_and_not_run_again(tmp_path: Path) -> None:
    material, budget = fitted(300)[1], Budget(3, 60, 0)
    first = Search(tmp_path, [Boosting()], material, budget).run()
    again = Search(tmp_path, [Boosting()], material, budget).run()
    assert again.trials == first.trials
    assert (again.body.predict(material.validation) == first.body.predict(material.validation)).all()


def test_a_candidate_that_fails_is_told_and_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boosting, "fit", _broken)
    found = Search(tmp_path, [Boosting(), MLP()], fitted(300)[1], Budget(2, 60, 0)).run()
    assert [standing.candidate for standing in found.standings] == ["mlp"]
    failed = next(trial for trial in found.trials if trial["candidate"] == "boosting")
    assert failed["state"] == "fail"
    assert "no memory for trees" in failed["error"]


def test_no_candidate_at_all_is_an_error_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosting, "fit", _broken)
    with pytest.raises(ModelError, match=r"No candidate trained. boosting: MemoryError: no memory for trees"):
        Search(tmp_path, [Boosting()], fitted(300)[1], Budget(2, 60, 0)).run()


def test_killed_search_keeps_finished_trials_and_doubles_none(tmp_path: Path) -> None:
    child = _child(tmp_path)
    assert child.stdout is not None
    lines = [child.stdout.readline().strip() for _ in range(3)]
    time.sleep(0.05)  # inside the third trial, or just before or after it: all are fine
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert lines[2].startswith("trial 2/6")
    again = _child(tmp_path)
    rest, _ = again.communicate(timeout=120)
    told = [line for line in rest.splitlines() if line.startswith("trial")]
    assert rest.splitlines()[-1] == "done"
    assert told[0].split()[1] in ("3/6", "4/6")
    assert told[-1].split()[1] == "6/6"
    found = Search(tmp_path, [Boosting()], fitted(6000)[1], Budget(6, 600, 0)).run()
    assert len(found.trials) == 6
    drawn = [str(trial["params"]) for trial in found.trials]
    assert len(set(drawn)) == 6, "no draw is made twice"


def test_a_trial_that_was_killed_before_anything_was_drawn_repeats_no_other(tmp_path: Path) -> None:
    import optuna

    material = fitted(300)[1]
    Search(tmp_path, [Boosting()], material, Budget(2, 60, 0)).run()
    study = optuna.load_study(study_name="boosting", storage=f"sqlite:///{tmp_path / 'study.db'}")
    study.ask()  # and the process is gone
    found = Search(tmp_path, [Boosting()], material, Budget(4, 60, 0)).run()
    drawn = [str(trial["params"]) for trial in found.trials]
    assert len(drawn) == len(set(drawn)) == 4


def test_defaults_lie_inside_the_search_space() -> None:
    import optuna

    for candidate in (Boosting(), MLP()):
        study = optuna.create_study()
        study.enqueue_trial(search.defaults(candidate))
        assert search.suggest(candidate, study.ask()) == search.defaults(candidate)


def _broken(*_: object, **__: object) -> None:
    raise MemoryError("no memory for trees")


def _child(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=ROOT,
    )
