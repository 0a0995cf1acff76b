"""Build Bentos with BentoML, off-line, from a folder that holds the sources of the service and its bundle."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import uuid
from contextlib import closing
from pathlib import Path

from ferroflow.core.errors import ServiceError

SERVICE = "serving.service:Service"
_PATIENCE = 300.0  # seconds for a build that takes five on a calm machine


def built(store: Path, name: str, version: str) -> str | None:
    """The tag of a Bento that is in the store, or None."""
    return f"{name}:{version}" if (store / "bentos" / name / version / "bento.yaml").is_file() else None


def build(context: Path, name: str, version: str, requirements: list[str], store: Path) -> str:
    """Build a Bento of a context folder; it appears in the store whole, or not at all.

    Args:
        context: holds the packages, the bundle, and nothing else.
        store: ``BENTOML_HOME``.

    Returns:
        The tag, ``name:version``.

    Raises:
        ServiceError: BentoML refuses.
    """
    (context / "bentofile.yaml").write_text(_bentofile(requirements))
    scratch = store / f".build-{uuid.uuid4().hex[:8]}"
    scratch.mkdir(parents=True)
    command = [sys.executable, "-m", "bentoml", "build", str(context), "--name", name, "--version", version]
    try:
        done = subprocess.run(
            command,
            cwd=context,
            env=_environment(scratch, context),
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        made = scratch / "bentos" / name / version
        if done.returncode != 0 or not (made / "bento.yaml").is_file():
            told = (done.stderr.strip() or done.stdout.strip())[-1500:]
            raise ServiceError(f"BentoML could not build {name}:{version}:\n{told}")
        _move(made, store / "bentos" / name, version)
    except subprocess.TimeoutExpired as error:
        raise ServiceError(f"BentoML did not build {name}:{version} within {_PATIENCE:.0f} s.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return f"{name}:{version}"


def copy_sources(package: Path, target: Path) -> None:
    """Copy a package's Python files, subpackages included."""
    for source in sorted(package.rglob("*.py")):
        place = target / source.relative_to(package)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)


def copy_database(source: Path, target: Path) -> None:
    """A consistent copy of a SQLite file that may be written meanwhile; one file, which needs no other beside it."""
    address = f"{source.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=30)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
        new.execute("PRAGMA journal_mode = DELETE")


def _bentofile(requirements: list[str]) -> str:
    listed = "\n".join(f"    - {entry}" for entry in requirements)
    return (
        f'service: "{SERVICE}"\ninclude:\n  - "**/*"\nexclude:\n  - "bentofile.yaml"\n'
        f"python:\n  lock_packages: false\n  packages:\n{listed}\n"
    )


def _environment(store: Path, context: Path) -> dict[str, str]:
    """The build imports the service: from the context, not from where this process runs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FERROFLOW_")}
    return {
        **kept,
        "BENTOML_HOME": str(store),
        "BENTOML_DO_NOT_TRACK": "true",
        "PYTHONPATH": str(context),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _move(made: Path, folder: Path, version: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / version, ignore_errors=True)  # without a bento.yaml: nothing that could be served
    made.rename(folder / version)
    latest = folder / f".latest-{uuid.uuid4().hex[:8]}"
    latest.write_text(version)
    latest.replace(folder / "latest")
