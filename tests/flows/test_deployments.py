from __future__ import annotations

import dataclasses
from pathlib import Path

import yaml

from ferroflow.adapters import pipelines
from flows import deployments

ROOT = Path(__file__).parents[2]


def own() -> list[str]:
    """The project's own pipelines: other tests may have added theirs."""
    return sorted(spec.parent.name for spec in (ROOT / "pipelines").glob("*/spec.py"))


def test_committed_file_is_what_the_specs_say() -> None:
    specs = [pipelines.load(name) for name in own()]
    assert (ROOT / "prefect.yaml").read_text() == deployments.text(specs), "run `make prefect`"


def test_stale_file_is_told_and_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "prefect.yaml"
    assert deployments.main(["--check", "--file", str(path)]) == 1
    assert deployments.main(["--write", "--file", str(path)]) == 0
    assert deployments.main(["--check", "--file", str(path)]) == 0
    path.write_text(path.read_text().replace("limit: 1", "limit: 2", 1))
    assert deployments.main(["--check", "--file", str(path)]) == 1


def test_each_pipeline_has_each_flow_and_is_retrained_by_its_own_events_alone() -> None:
    specs = [pipelines.load(name) for name in own()]
    found = yaml.safe_load(deployments.text(specs))["deployments"]
    flows = {"flows.ingest.ingest", "flows.train.train", "flows.monitor.monitor", "flows.retrain.retrain"}
    flows |= {"flows.batch_predict.batch_predict", "flows.skew.skew"}
    for name in own():
        mine = [entry for entry in found if entry["name"] == name]
        assert {entry["entrypoint"] for entry in mine} == flows
        triggers = [trigger for entry in mine for trigger in entry.get("triggers", [])]
        assert [trigger["match"] for trigger in triggers] == [{"prefect.resource.id": f"ferroflow.pipeline.{name}"}]
        # Another model would be fed the same wrong inputs.
        assert all("ferroflow.skew.detected" not in trigger["expect"] for trigger in triggers)


def test_a_pipeline_that_computes_nothing_has_no_skew_to_measure() -> None:
    plain = dataclasses.replace(pipelines.load(own()[0]), features=())
    entries = deployments.project([plain])["deployments"]
    assert "flows.skew.skew" not in {entry["entrypoint"] for entry in entries}
    assert "flows.monitor.monitor" in {entry["entrypoint"] for entry in entries}


def test_paused_schedules_are_there_but_do_not_run() -> None:
    [spec, *_] = [pipelines.load(name) for name in own()]
    entries = deployments.project([spec], paused=True)["deployments"]
    schedules = [schedule for entry in entries for schedule in entry.get("schedules", [])]
    assert schedules
    assert not any(schedule["active"] for schedule in schedules)
