"""``python -m ferroflow.adapters.mlflow_server PORT``: make the home's registry if there is none, then serve it.

MLflow's server would make the database itself, in seconds and in no transaction: a flow that registers meanwhile, or a
kill, would meet half a database.
"""

from __future__ import annotations

import os
import sys

from ferroflow.adapters.home import Home
from ferroflow.adapters.settings import load_settings


def main(port: str) -> None:
    """Become the MLflow server of this environment's home, on loopback."""
    settings = load_settings()
    home = Home.of(settings)
    database = home.mlflow / "mlflow.db"
    if settings.tracking_uri is None and not database.exists():
        from ferroflow.adapters.registry import load_mlflow

        load_mlflow(home)
    store = settings.tracking_uri or f"sqlite:///{database}"
    artifacts = (home.mlflow / "artifacts").as_uri()
    arguments = ["--host", "127.0.0.1", "--port", port, "--workers", "1", "--backend-store-uri", store]
    command = [sys.executable, "-m", "mlflow", "server", *arguments, "--default-artifact-root", artifacts]
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1])
