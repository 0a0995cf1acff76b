"""The training station: the best candidate, whole on disk, made once, and served as it was trained."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest

from ferroflow.adapters.graph import Graph
from ferroflow.adapters.home import Home
from ferroflow.core.errors import ModelError
from ferroflow.core.metrics import score
from ferroflow.core.records import Split
from ferroflow.core.spec import (
    MLP,
    Baseline,
    Boosting,
    Classification,
    FixedFiles,
    PipelineSpec,
    Regression,
    Source,
    Tuning,
)
from ferroflow.stations.train import train
from tests.models.learnable import CATEGORICAL, ENCODINGS, NUMERIC, table, values

ROOT = Path(__file__).resolve().parents[2]
SPEC = PipelineSpec(
    name="toy",
    description="Minutes from a distance.",
    source=Source(files=FixedFiles(()), format="csv"),
    schema=object,
    inputs=(*NUMERIC, *CATEGORICAL),
    categorical=CATEGORICAL,
    encodings=ENCODINGS,
    target=Regression("target"),
    candidates=(Boosting(),),
    baseline=Baseline(by=("zone",)),
    tuning=Tuning(trials=2, seconds=20),
)
CHILD = """
import sys
from pathlib import Path
from ferroflow.adapters.home import Home
from ferroflow.stations.train import train
from tests.stations.test_train import SPEC, splits
home = Home(Path(sys.argv[1]))
model = train(SPEC, splits(home, 6000), home, seconds=600, trials=5, progress=lambda line: print(line, flush=True))
print(model.fingerprint, flush=True)
"""


def splits(home: Home, count: int = 900, *, classes: bool = False, weighted: bool = False, name: str = "s1") -> Split:
    folder = home.data("toy") / "splits" / name
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"train": count, "validation": count // 3, "test": count // 3}
    paths: dict[str, str] = {}
    for seed, (part, rows) in enumerate(sizes.items()):
        frame = table(rows, seed, classes=classes)
        if weighted and part == "train":
            frame = frame.with_columns(weight=pl.int_range(pl.len()) / pl.len() + 0.01)
        frame.write_parquet(folder / f"{part}.parquet")
        paths[part] = home.relative(folder / f"{part}.parquet")
    return Split.model_validate(
        {
            "pipeline": "toy",
            "fingerprint": name,
            "as_of": datetime(2023, 4, 1, tzinfo=UTC),
            "paths": paths,
            "rows": sizes,
            "boundaries": {},
            "numeric": NUMERIC,
            "categorical": CATEGORICAL,
            "target": "target",
            "time": None,
            "slices": (),
            "weighted": weighted,
        }
    )


def test_graph_on_disk_scores_as_the_leaderboard_says(home: Home) -> None:
    split = splits(home)
    model = train(SPEC, split, home)
    folder = home.absolute(model.path)
    rows = pl.read_parquet(home.absolute(split.paths["validation"]))
    found = score("regression", values(rows), Graph(folder / "model.onnx").predict(rows))
    best = model.leaderboard[0]
    assert best.candidate == model.candidate == "boosting"
    assert math.isclose(found["rmse"], best.metrics["rmse"], rel_tol=1e-4)
    assert [line.candidate for line in model.leaderboard] == ["boosting", "baseline"]
    assert model.inputs == {"distance": "float", "gaps": "float", "zone": "int", "kind": "text"}
    assert model.parent == split.fingerprint
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx",
        "model.lgb.txt",
        "preprocess.json",
        "baseline.json",
        "trials.json",
        "manifest.json",
    }
    assert len(orjson.loads((folder / "trials.json").read_bytes())) == best.trials == 2


def test_network_champion_keeps_safetensors_and_its_configuration(home: Home) -> None:
    model = train(replace(SPEC, candidates=(MLP(),)), splits(home, 600), home, trials=1)
    names = {path.name for path in home.absolute(model.path).iterdir()}
    assert {"model.onnx", "model.safetensors", "config.json"} <= names
    assert model.candidate == "mlp"


def test_classification_gives_the_probability_of_the_positive_class(home: Home) -> None:
    spec = replace(SPEC, target=Classification("target", positive="yes"))
    split = splits(home, classes=True)
    model = train(spec, split, home)
    rows = pl.read_parquet(home.absolute(split.paths["test"]))
    found = Graph(home.absolute(model.path) / "model.onnx").predict(rows)
    assert model.metric == "log_loss"
    assert score("classification", values(rows), found)["auc"] > 0.95
    assert ((found >= 0) & (found <= 1)).all()


def test_trained_once_is_not_trained_again(home: Home) -> None:
    split = splits(home, 600)
    first = train(SPEC, split, home)
    assert train(SPEC, split, home, progress=pytest.fail) == first


def test_other_data_settings_or_candidates_are_another_model(home: Home) -> None:
    split = splits(home, 300)
    names = {
        train(SPEC, split, home, trials=1).fingerprint,
        train(SPEC, splits(home, 300, name="s2"), home, trials=1).fingerprint,
        train(SPEC, split, home, trials=1, seconds=19).fingerprint,
        train(replace(SPEC, encodings=()), split, home, trials=1).fingerprint,
    }
    assert len(names) == 4


def test_a_weighted_split_gives_another_model_than_an_unweighted_one(home: Home) -> None:
    plain = train(SPEC, splits(home, 600), home, trials=1)
    weighted = train(SPEC, splits(home, 600, weighted=True, name="s2"), home, trials=1)
    rows = table(200, 9)
    first, second = (Graph(home.absolute(model.path) / "model.onnx").predict(rows) for model in (plain, weighted))
    assert not np.allclose(first, second)


def test_a_target_with_gaps_is_refused(home: Home) -> None:
    split = splits(home, 300)
    path = home.absolute(split.paths["train"])
    pl.read_parquet(path).with_columns(target=pl.when(pl.int_range(pl.len()) > 3).then("target")).write_parquet(path)
    with pytest.raises(ModelError, match="4 of 300 rows have no 'target'"):
        train(SPEC, split, home)


def test_progress_tells_each_trial_with_the_best_so_far(home: Home) -> None:
    lines: list[str] = []
    train(SPEC, splits(home, 300), home, progress=lines.append)
    assert [line.split(" rmse ")[0] for line in lines if "pruned" not in line] == [
        "trial 1/2 boosting",
        "trial 2/2 boosting",
    ][: len([line for line in lines if "pruned" not in line])]
    assert all("(best " in line for line in lines)


def test_killed_training_goes_on_and_leaves_one_whole_model(home: Home) -> None:
    child = _child(home)
    assert child.stdout is not None
    first = [child.stdout.readline() for _ in range(2)]
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert first[1].startswith("trial 2/5")
    rest = _child(home).communicate(timeout=120)[0].splitlines()
    assert rest[0].split()[1] in ("3/5", "4/5"), "two trials were finished before"
    [folder] = [path for path in (home.data("toy") / "models").iterdir() if not path.name.startswith(".")]
    assert rest[-1] == folder.name
    assert len(orjson.loads((folder / "trials.json").read_bytes())) == 5


@pytest.mark.data
def test_quick_search_on_real_trips_beats_the_reference_scores(home: Home, mirror: Path) -> None:
    split, spec = _trips(home, mirror)
    model = train(spec, split, home, trials=1)
    rows = pl.read_parquet(home.absolute(split.paths["test"]))
    found = Graph(home.absolute(model.path) / "model.onnx").predict(rows)
    assert model.leaderboard[0].metrics["rmse"] < 4.60
    assert score("regression", rows["target"].to_numpy(), found)["rmse"] < 4.80


def _trips(home: Home, mirror: Path) -> tuple[Split, PipelineSpec]:
    folder = home.data("toy") / "splits" / "trips"
    folder.mkdir(parents=True)
    begun, ended = pl.col("lpep_pickup_datetime"), pl.col("lpep_dropoff_datetime")
    paths = {}
    for month, part in enumerate(("train", "validation", "test"), start=1):
        rows = pl.scan_parquet(mirror / f"nyc_tlc_green/green_tripdata_2023-{month:02}.parquet")
        rows = rows.filter(begun.dt.year() == 2023, begun.dt.month() == month).select(
            pl.col("PULocationID", "DOLocationID").cast(pl.Int64),
            "trip_distance",
            hour=begun.dt.hour().cast(pl.Float64),
            weekday=begun.dt.weekday().cast(pl.Float64),
            target=(ended - begun).dt.total_seconds() / 60,
        )
        rows.filter(pl.col("target").is_between(1, 60)).collect().write_parquet(folder / f"{part}.parquet")
        paths[part] = home.relative(folder / f"{part}.parquet")
    zones = ("PULocationID", "DOLocationID")
    changed: dict[str, Any] = {
        "paths": paths,
        "fingerprint": "trips",
        "numeric": ("trip_distance", "hour", "weekday"),
        "categorical": zones,
    }
    encodings = tuple(replace(ENCODINGS[0], columns=columns, smoothing=20.0) for columns in (zones, zones[:1]))
    spec = replace(
        SPEC,
        inputs=(*zones, "trip_distance"),
        categorical=zones,
        encodings=encodings,
        baseline=Baseline(by=zones),
        tuning=Tuning(trials=1, seconds=60),
    )
    return splits(home, 30).model_copy(update=changed), spec


def _child(home: Home) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(home.root)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=ROOT,
    )
