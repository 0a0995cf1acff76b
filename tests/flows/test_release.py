from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from ferroflow.core.errors import ServiceError
from flows import release as released

PARTS = [SimpleNamespace(fingerprint=name, rows_accepted=9) for name in ("snapshot", "validated", "table", "split")]


class ARun:
    """Answers for each task, and keeps their order."""

    pipeline = "toy"
    as_of = now = SimpleNamespace(isoformat=lambda: "2024-01-01")

    def __init__(self, action: str, bento: str | Exception, timed: bool = True) -> None:
        self.spec = SimpleNamespace(timed=timed)
        self.order: list[str] = []
        self.lineage: dict[str, str] = {}
        metrics: dict[str, Any] = {"metrics": {}, "baseline": {}, "champion": {}, "reason": "", "leaderboard": ()}
        thing = SimpleNamespace(fingerprint="f", version="7", candidate="c", metric="mae", **metrics)
        self.answers: dict[str, Any] = {"bento": bento, "promote": SimpleNamespace(action=action)}
        self.otherwise = thing

    def __call__(self, task: Any, *arguments: Any) -> Any:
        self.order.append(task.name)
        if task.name.startswith("package"):
            self.lineage = arguments[1]
        answer = self.answers.get(task.name, self.otherwise)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def present(self) -> None:
        """No matter."""


def release(run: ARun, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(released, "emit", lambda *_: None)
    return released.release(run, *PARTS, None)  # type: ignore[arg-type]


def test_model_that_passed_serves_though_its_bento_cannot_be_built(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = ARun("promoted", ServiceError("BentoML refuses"))
    with caplog.at_level(logging.WARNING):
        told = release(run, monkeypatch)
    assert (told["promoted"], told["version"], told["bento"]) == (True, "7", None)
    assert run.order[-2:] == ["promote", "bento"]
    assert "version 7 serves, but its Bento could not be built: BentoML refuses" in caplog.text


def test_rejected_version_gets_no_bento(monkeypatch: pytest.MonkeyPatch) -> None:
    run = ARun("rejected", "tag")
    assert release(run, monkeypatch)["bento"] is None
    assert "bento" not in run.order


@pytest.mark.parametrize("timed", [True, False])
def test_moment_is_in_the_lineage_only_where_rows_have_a_time(monkeypatch: pytest.MonkeyPatch, timed: bool) -> None:
    run = ARun("promoted", "tag", timed)
    assert release(run, monkeypatch)["bento"] == "tag"
    assert ("as_of" in run.lineage) is timed
