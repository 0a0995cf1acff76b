"""What every test may use: a home of its own, the real data, an environment that phones nobody."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Before any vendor is imported: vendors read these once.
os.environ.update(
    {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "BENTOML_DO_NOT_TRACK": "true",
        "FEAST_USAGE": "False",
        "TZ": "UTC",
        "MPLBACKEND": "Agg",
    }
)
for name in ("HOME", "SIMULATE", "PIPELINES", "ONLINE_STORE", "FEATURE_REGISTRY"):
    os.environ.pop(f"FERROFLOW_{name}", None)
for name in ("PREFECT_API_URL", "PREFECT_HOME"):
    os.environ.pop(name, None)
_SHARED = ROOT.parent / "shared" / "data"
if "FERROFLOW_MIRROR" not in os.environ and _SHARED.is_dir():
    os.environ["FERROFLOW_MIRROR"] = str(_SHARED)
# Console scripts (prefect, bentoml, feast) of this very environment come first.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

from ferroflow.adapters.home import Home  # noqa: E402


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty home folder."""
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The folder of the real data sets; a test that claims something about them is skipped aloud without it."""
    folder = Path(os.environ.get("FERROFLOW_MIRROR", "missing"))
    if not folder.is_dir():
        pytest.skip(
            "the real data sets are not here: put nyc_tlc_green/, bike_sharing/ and adult/ (see docs/data.md for their "
            "addresses) in a folder and set FERROFLOW_MIRROR to it"
        )
    return folder


# The slow ones first, so that no process is left waiting for one of them.
_FIRST = ("demo", "flows", "docs", "journey", "test_fuzz_files.py", "test_faults.py", "test_compiled.py", "scaffold")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow folders and files."""

    def place(item: pytest.Item) -> int:
        parts = item.path.relative_to(ROOT / "tests").parts
        return min((_FIRST.index(part) for part in parts if part in _FIRST), default=len(_FIRST))

    items.sort(key=place)
