from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from ferroflow.adapters import registry, runs
from ferroflow.adapters.champion import ChampionReader
from ferroflow.adapters.home import Home
from ferroflow.adapters.ledger import Ledger
from ferroflow.core.errors import NotFound, RegistryError
from ferroflow.stations.package import write_package
from ferroflow.stations.register import promote, register, rollback, verify
from tests.toy_model import AT, deployed, graph, registered, trained

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database, empty: making it takes seconds."""
    home = Home(tmp_path_factory.mktemp("migrated"))
    registry.client(home)
    return home.mlflow / "mlflow.db"


def home_with(database: Path, root: Path) -> Home:
    home = Home(root)
    home.mlflow.mkdir(parents=True)
    shutil.copyfile(database, home.mlflow / "mlflow.db")
    return home


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Home:
    """A home with version 1 (once champion), 2 (champion) and 3 (rejected); read only."""
    home = home_with(migrated, tmp_path_factory.mktemp("used") / "home")
    deployed(home, 1)
    deployed(home, 2, trials=0)
    deployed(home, 3, trials=0, passed=False)
    return home


@pytest.fixture
def fresh(tmp_path: Path, migrated: Path) -> Home:
    """A home with an empty registry."""
    return home_with(migrated, tmp_path / "home")


def test_a_promoted_version_is_what_the_service_finds(used: Home) -> None:
    ref = ChampionReader(used.root).read("toy")
    assert ref is not None
    assert (ref.version, ref.fingerprint) == ("2", f"{2:016x}")
    assert (used.absolute(ref.package) / "model.onnx").is_file()
    assert ChampionReader(used.root).pipelines() == ["toy"]


def test_a_rejected_version_stays_challenger_and_the_ledger_says_why(used: Home) -> None:
    assert registry.aliases("toy", used) == {"champion": "2", "challenger": "3"}
    told = Ledger(used.ledger).history("toy")
    assert [(line.action, line.version, line.previous) for line in told] == [
        ("promoted", "1", None),
        ("promoted", "2", "1"),
        ("rejected", "3", "2"),
    ]
    assert told[-1].why == "rmse 1.0 against 5.0 (3)"


def test_a_version_tells_its_model_metrics_and_verdict(used: Home) -> None:
    version = registry.version("toy", "1", used)
    assert version.metrics["test_rmse"] == 1.25
    assert version.metrics["baseline_validation_rmse"] == 5.0
    assert (version.candidate, version.parent) == ("boosting", "v1True")
    assert registry.champion("toy", used) == registry.version("toy", "2", used)
    with pytest.raises(NotFound, match=r"Known: 1, 2, 3"):
        registry.version("toy", "17", used)


def test_a_run_holds_trials_metrics_plot_data_sets_and_a_signature(used: Home) -> None:
    mlflow = registry.load_mlflow(used)
    client = mlflow.MlflowClient()
    run_id = registry.version("toy", "1", used).run_id
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_rmse"] == 1.25
    assert run.data.params["leaves"] == "31"
    assert {data.dataset.digest for data in run.inputs.dataset_inputs} == {"5p1it"}
    assert len(run.inputs.dataset_inputs) == 3
    children = client.search_runs([run.info.experiment_id], f"tags.mlflow.parentRunId = '{run_id}'")
    assert sorted(child.info.status for child in children) == ["FAILED", "FINISHED", "KILLED"]
    plot = Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="plots/evaluation.png"))
    assert plot.read_bytes()[:4] == b"\x89PNG"
    kept = {entry.path for entry in client.list_artifacts(run_id, "package")}
    assert {"package/serving.json", "package/model.txt", "package/model_card.md"} <= kept
    signature = mlflow.models.get_model_info("models:/toy/1").signature
    assert signature.inputs.input_names() == ["zone", "distance", "colour", "hour", "zone_mean__mean"]


def test_a_stranger_can_load_a_registered_version_by_its_alias(used: Home) -> None:
    import numpy as np

    from ferroflow.adapters.graph import Graph
    from tests.toy_model import rows

    frame = rows(np.random.default_rng(5), 4)
    local = Graph(used.packages("toy") / f"{2:016x}" / "model.onnx")
    loaded = registry.load_mlflow(used).pyfunc.load_model("models:/toy@champion")
    assert loaded.predict(local.feed(frame))["prediction"].ravel().tolist() == local.predict(frame).tolist()


def test_nothing_below_the_registry_or_a_package_is_a_pickle(used: Home) -> None:
    files = [path for path in [*used.mlflow.rglob("*"), *(used.root / "packages").rglob("*")] if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".ckpt")]
    assert not [path for path in files if path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")]
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


def test_registering_and_promoting_again_adds_nothing(fresh: Home) -> None:
    first = deployed(fresh)
    before = fresh.ledger.read_bytes()
    assert deployed(fresh)[1:] == first[1:]
    assert len(registry.versions("toy", fresh)) == 1
    assert fresh.ledger.read_bytes() == before
    client = registry.client(fresh)
    assert len(client.search_runs([client.get_experiment_by_name("toy").experiment_id])) == 4  # with three trials


def test_promoting_an_old_verdict_again_does_not_bring_the_old_version_back(fresh: Home) -> None:
    made, version, _ = deployed(fresh, 1, trials=0)
    deployed(fresh, 2, trials=0)
    line = promote(made.spec, version, made.verdict, fresh, at=AT + timedelta(days=1))
    assert (line.action, line.why) == (
        "rejected",
        "its verdict led to entry 1 already, and version 2 serves now: run it again",
    )
    assert registry.aliases("toy", fresh)["champion"] == "2"


def test_after_a_rollback_the_same_verdict_promotes_again_and_only_once(fresh: Home) -> None:
    deployed(fresh, 1, trials=0)
    made, version, first = deployed(fresh, 2, trials=0)
    rollback("toy", fresh, at=AT, why="a mistake")
    again = promote(made.spec, version, made.verdict, fresh, at=AT)
    assert (again.action, again.version, again.previous) == ("promoted", "2", "1")
    assert again.entry > first.entry
    assert registry.aliases("toy", fresh)["champion"] == "2"
    assert promote(made.spec, version, made.verdict, fresh, at=AT) == again
    assert len(Ledger(fresh.ledger).history("toy")) == 4


def test_a_verdict_against_a_champion_that_was_replaced_promotes_nothing(fresh: Home) -> None:
    deployed(fresh, 1, trials=0)
    made, version = registered(fresh, 2, trials=0)
    verdict = made.verdict.model_copy(update={"against": "1"})
    deployed(fresh, 3, trials=0)
    line = promote(made.spec, version, verdict, fresh, at=AT)
    assert line.action == "rejected"
    assert line.why == "judged against version 1, but version 3 serves now: run it again"
    assert promote(made.spec, version, verdict, fresh, at=AT) == line
    assert registry.aliases("toy", fresh)["champion"] == "3"
    rollback("toy", fresh, at=AT, why="version 3 is worse")
    assert promote(made.spec, version, verdict, fresh, at=AT).action == "promoted"


def test_a_registry_that_is_away_for_a_moment_spoils_no_version(fresh: Home) -> None:
    made = trained(fresh, 1, trials=0)
    package = write_package(made.spec, made.model, {}, fresh)

    def away(*_: object) -> Path:
        raise RegistryError("The model registry could not give back version 1: connection refused")

    arguments = (made.spec, made.model, made.evaluation, made.verdict, made.split, package, fresh)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "download", away)
        with pytest.raises(RegistryError, match="connection refused"):
            register(*arguments, at=AT)
    assert register(*arguments, at=AT).version == "1"


def test_a_model_whose_registered_graph_answers_otherwise_moves_no_alias(fresh: Home) -> None:
    deployed(fresh, 1, trials=0)
    made = trained(fresh, 2, trials=0)
    package = write_package(made.spec, made.model, {}, fresh)
    log = runs.log_version

    def other_bytes(told: runs.Log, run_id: str, path: Path, home: Home) -> str:
        wrong = home.root / "wrong.onnx"
        wrong.write_bytes(graph(77.0))
        return log(told, run_id, wrong, home)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "log_version", other_bytes)
        with pytest.raises(RegistryError, match="answers otherwise than its package"):
            register(made.spec, made.model, made.evaluation, made.verdict, made.split, package, fresh, at=AT)
    assert registry.aliases("toy", fresh) == {"champion": "1"}
    assert [entry.version for entry in registry.versions("toy", fresh)] == ["1"]  # the broken one is set aside
    mended = register(made.spec, made.model, made.evaluation, made.verdict, made.split, package, fresh, at=AT)
    assert mended.version == "3"
    assert registry.aliases("toy", fresh) == {"champion": "1", "challenger": "3"}


def test_a_version_whose_file_was_damaged_is_neither_promoted_nor_rolled_back_to(fresh: Home) -> None:
    made, version = registered(fresh, 1, trials=0)
    [stored] = (fresh.mlflow / "artifacts").rglob("model.onnx")
    good = stored.read_bytes()
    stored.write_bytes(good[:100])
    with pytest.raises(RegistryError, match="does not load"):
        promote(made.spec, version, made.verdict, fresh, at=AT)
    assert "champion" not in registry.aliases("toy", fresh)
    assert Ledger(fresh.ledger).history("toy") == []
    stored.write_bytes(good)
    promote(made.spec, version, made.verdict, fresh, at=AT)
    deployed(fresh, 2, trials=0)
    stored.unlink()
    with pytest.raises(RegistryError):
        rollback("toy", fresh, at=AT, why="slow")
    assert registry.aliases("toy", fresh)["champion"] == "2"


def test_rollback_serves_the_version_before_and_a_cut_one_is_completed(fresh: Home) -> None:
    with pytest.raises(NotFound, match="none was promoted"):
        rollback("toy", fresh, at=AT, why="?")
    deployed(fresh, 1, trials=0)
    with pytest.raises(NotFound, match="before 1"):
        rollback("toy", fresh, at=AT, why="?")
    deployed(fresh, 2, trials=0)
    line = rollback("toy", fresh, at=AT, why="too slow on Mondays")
    assert (line.action, line.version, line.previous, line.why) == ("rolled back", "1", "2", "too slow on Mondays")
    assert registry.aliases("toy", fresh)["champion"] == "1"
    registry.set_alias("toy", "champion", "2", fresh)  # as if killed between the ledger and the alias
    assert rollback("toy", fresh, at=AT, why="again") == line
    assert registry.aliases("toy", fresh)["champion"] == "1"
    assert len(Ledger(fresh.ledger).history("toy")) == 3


def test_a_promotion_cut_before_its_alias_is_completed(fresh: Home) -> None:
    made, version, line = deployed(fresh, 1, trials=0)
    registry.drop_alias("toy", "champion", fresh)
    assert promote(made.spec, version, made.verdict, fresh, at=AT) == line
    assert registry.aliases("toy", fresh) == {"champion": "1"}
    verify(version, fresh.absolute(version.reference), fresh)


def test_asking_a_home_without_a_registry_makes_none(home: Home) -> None:
    assert registry.versions("toy", home) == []
    assert registry.champion("toy", home) is None
    assert not home.root.exists()
    with pytest.raises(RegistryError, match=r"mlflow\.db cannot be read"):
        ChampionReader(home.root).read("toy")


def test_a_champion_registered_by_other_means_is_told(fresh: Home) -> None:
    client = registry.client(fresh)
    client.create_registered_model("alien")
    client.create_model_version("alien", "file:///nowhere")
    client.set_registered_model_alias("alien", "champion", "1")
    with pytest.raises(RegistryError, match=r"ferroflow\.package"):
        ChampionReader(fresh.root).read("alien")
    assert registry.versions("alien", fresh) == []


KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
import mlflow, mlflow.onnx, onnx, onnxruntime, matplotlib.figure, pandas
from sqlalchemy import event
from sqlalchemy.engine import Engine
from ferroflow.adapters.home import Home
from tests.toy_model import deployed

home, points = Home(Path(sys.argv[1])), [int(point) for point in sys.argv[2].split(",")]

def child(point):
    count = [0]
    @event.listens_for(Engine, "before_cursor_execute")
    def counted(connection, cursor, statement, *rest):
        made = (home.mlflow / "mlflow.db").exists()
        if made or point == 2:
            count[0] += statement.lstrip()[:6].upper() in ("INSERT", "UPDATE", "DELETE")
        if point and count[0] == point:
            os.kill(os.getpid(), signal.SIGKILL)
    deployed(home)
    print("statements", count[0], flush=True)
    os._exit(0)

for point in points:
    if (pid := os.fork()) == 0:
        child(point)
    _, status = os.waitpid(pid, 0)
    print("killed" if os.WIFSIGNALED(status) else "ended", flush=True)
    if status and not os.WIFSIGNALED(status):
        sys.exit(1)
"""


def test_killed_anywhere_the_same_again_gives_one_version_and_one_ledger_line(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    points = ["2", "10", "20", "8", "5", "0"]  # after so many writes each child is killed; the first while migrating
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(home.root), ",".join(points)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split().count("killed") == 5, done.stdout
    assert done.stdout.rstrip().endswith("ended")
    assert [entry.version for entry in registry.versions("toy", home)] == ["1"]
    assert registry.aliases("toy", home) == {"champion": "1"}
    assert [line.action for line in Ledger(home.ledger).history("toy")] == ["promoted"]
    client = registry.client(home)
    found = client.search_runs([client.get_experiment_by_name("toy").experiment_id])
    assert sorted(run.info.status for run in found) == ["FAILED", "FINISHED", "FINISHED", "KILLED"]
    assert not list(home.packages("toy").glob(".*"))
