"""Mutated files through the readers: some 10,000, each of which can be made again from its seed.

A thousand at a time are read in a process of their own: a native reader that ends it is told by the seed.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNS = {"csv": 3_000, "ndjson": 2_700, "parquet": 2_000, "arrow": 1_200, "packed": 800, "excel": 500}
"""10,200 files in all."""
CHUNK = 1_000


def fuzzed(folder: Path, kind: str, first: int, count: int) -> str:
    """Read ``count`` mutated files in a process of its own; gives what it says when it fails, with the seed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz_files", kind, str(first), str(count)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "2", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    if done.returncode == 0:
        return ""
    seed = (folder / "at").read_text()
    again = f"python -m tests.fuzz_files {kind} {seed} 1"
    return f"{kind} seed {seed}: exit {done.returncode}. {again}\n{done.stderr[-3_000:]}"


@pytest.mark.parametrize(
    ("kind", "first", "count"),
    [(kind, first, min(CHUNK, total - first)) for kind, total in RUNS.items() for first in range(0, total, CHUNK)],
)
def test_mutated_file_is_rows_for_every_line_or_unreadable_whole_and_ends_no_process(
    tmp_path: Path, kind: str, first: int, count: int
) -> None:
    assert fuzzed(tmp_path, kind, first, count) == ""


@pytest.mark.parametrize("seed", [1793, 5890])
def test_address_of_a_text_that_is_null_ends_no_process(tmp_path: Path, seed: int) -> None:
    """One wrong bit in the place of a null: Arrow's own check passes it, Polars and pyarrow's cast follow it."""
    assert fuzzed(tmp_path, "arrow", seed, 1) == ""


def test_a_process_that_ends_is_told_with_its_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os, polars\npolars.read_parquet = lambda *_: os.abort()\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", f"{tmp_path}{os.pathsep}{ROOT}")
    assert fuzzed(tmp_path, "csv", 4, 20).startswith("csv seed ")
