"""Processes are killed and files harmed, anywhere and at any time: no row is lost or doubled, no result is wrong."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ferroflow.adapters.home import Home
from ferroflow.core.errors import FerroflowError
from ferroflow.stations import versions
from ferroflow.stations.validate import validate
from tests.lives import FIRST, SECOND, live, specs
from tests.parcels import a_mirror

ROOT = Path(__file__).resolve().parents[2]
STEPS = {"plain": range(1, 140, 12), "keyed": range(2, 186, 16), "cleaned": range(3, 122, 10)}
HARMS = 45


@pytest.fixture(scope="module")
def post(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_mirror(tmp_path_factory.mktemp("post"), parcels=FIRST, more=SECOND)


@pytest.fixture(scope="module")
def calm(post: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Home]:
    """A home for each pipeline that nothing happened to."""
    homes = {name: Home(tmp_path_factory.mktemp(name)) for name in specs()}
    for name, home in homes.items():
        live(specs()[name], home, post)
    return homes


def files(home: Home) -> list[str]:
    """All files but hidden ones (temporary files of the dead, locks)."""
    every = sorted(home.relative(path) for path in home.data("parcels").rglob("*") if path.is_file())
    return [name for name in every if "/." not in name]


def told(name: str, home: Home) -> dict[str, Any]:
    """What a home says of its data: the verdicts and rows of every snapshot.

    Every raw row of every snapshot is looked for: it is in one of the two tables, once.
    """
    found: dict[str, Any] = {}
    for kept in versions.history("parcels", home):
        snapshot = kept.snapshot
        verdicts = validate(specs()[name], snapshot, home)
        raw = [
            f"{part.fingerprint}:{row}"
            for part in snapshot.parts
            for row in pl.read_parquet(home.absolute(part.path))["_row"]
        ]
        accepted, quarantined = (
            pl.concat([pl.read_parquet(home.absolute(path)) for path in paths])
            for paths in (verdicts.accepted, verdicts.quarantined)
        )
        assert sorted([*accepted["row_id"], *quarantined["row_id"]]) == sorted(raw)
        assert (verdicts.rows_in, verdicts.rows_accepted) == (len(raw), accepted.height)
        found[snapshot.fingerprint] = (verdicts, accepted.rows(), quarantined.rows())
    # The record of an older snapshot is not made again by a run: verify names it.
    damaged = versions.verify("parcels", home)[1]
    assert all(Path(one.path).parent.name == "snapshots" and Path(one.path).stem not in found for one in damaged)
    return found


@pytest.mark.timeout(300)
def test_killed_at_any_step_the_next_run_ends_as_if_nothing_had_happened(
    post: Path, calm: dict[str, Home], tmp_path: Path
) -> None:
    wanted = {name: told(name, home) for name, home in calm.items()}
    lives = [(name, step) for name, steps in STEPS.items() for step in steps]
    command = [sys.executable, "-m", "tests.lives", str(post)]
    command += [f"{name}:{step}:{tmp_path / f'{name}{step}'}" for name, step in lives]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"POLARS_MAX_THREADS": "2"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ends = [line.split() for line in done.stdout.splitlines()]
    assert sorted((name, int(step)) for name, step, status in ends if status == "9") == sorted(lives), done.stderr
    assert [status for _, step, status in ends if step == "0"] == ["0"] * len(lives), done.stderr
    assert len(lives) >= 36
    for name, step in lives:
        home = Home(tmp_path / f"{name}{step}")
        assert told(name, home) == wanted[name], f"{name} killed at step {step}"
        assert files(home) == files(calm[name]), f"{name} killed at step {step}"


def harm(path: Path, dice: random.Random) -> str:
    """Flip a bit, cut the file, or remove it."""
    kind = dice.choice(("flip", "cut", "remove"))
    data = bytearray(path.read_bytes())
    if kind == "remove" or not data:
        path.unlink()
    elif kind == "cut":
        path.write_bytes(data[: dice.randrange(len(data))])
    else:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        path.write_bytes(data)
    return f"{kind} {path.name}"


@pytest.mark.timeout(300)
def test_harmed_file_is_made_again_or_named_in_an_error(post: Path, tmp_path: Path) -> None:
    dice = random.Random(20240501)
    calm = {name: Home(tmp_path / name) for name in specs()}
    for name, home in calm.items():
        live(specs()[name], home, post, to_the_end=False)
    wanted = {name: told(name, home) for name, home in calm.items()}
    mended = 0
    for number in range(HARMS):
        name = dice.choice(sorted(calm))
        home = Home(tmp_path / str(number))
        shutil.copytree(calm[name].root, home.root)
        path = home.absolute(dice.choice(files(home)))
        good = path.read_bytes()
        what = f"{number}: {name}: {harm(path, dice)}"
        try:
            live(specs()[name], home, post, to_the_end=False)
            found = told(name, home)
            mended += 1
        except FerroflowError as error:
            assert path.name in str(error), what
            path.write_bytes(good)
            live(specs()[name], home, post, to_the_end=False)
            found = told(name, home)
        # An older snapshot's record may be gone with its file: what is there is right, and the newest is there.
        newest = versions.find("parcels", "latest", calm[name]).fingerprint
        assert newest in found, what
        assert found == {snapshot: wanted[name][snapshot] for snapshot in found}, what
    assert mended > HARMS / 2
