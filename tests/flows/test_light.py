"""A flow's process loads what its stations need, when they need it: each second counts in each of its runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("feast", "torch", "lightning", "mlflow", "pandas", "evidently", "bentoml", "optuna", "sklearn")
FLOWS = sorted(f"flows.{path.stem}" for path in (ROOT / "flows").glob("[a-z]*.py"))
COMMANDS = sorted(f"ferroflow.cli.{path.stem}" for path in (ROOT / "ferroflow" / "cli").glob("[a-z]*.py"))


@pytest.mark.parametrize("module", [*FLOWS, *COMMANDS])
def test_to_import_it_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
