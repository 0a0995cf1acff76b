"""The service's own limits and places, read from the environment once, when it starts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ferroflow.adapters.home import Home
from ferroflow.adapters.settings import load_settings
from ferroflow.core.errors import SettingsError

_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Limits:
    """What one request may take, and how often the registry is asked."""

    body: int = 1 << 20  # bytes
    rows: int = 1_000
    concurrent: int = 64  # requests being read or answered; more are told to come again
    body_seconds: float = 30.0  # to send a body
    poll_seconds: float = 0.7


@dataclass(frozen=True)
class Places:
    """Where state lies; ``bundle`` holds the models that were packed together with the service."""

    home: Home
    tracking_uri: str | None
    bundle: Path


def load_limits() -> Limits:
    """``FERROFLOW_SERVICE_BODY`` (bytes), ``…_ROWS``, ``…_CONCURRENT``, ``…_BODY_SECONDS``, ``…_POLL_SECONDS``.

    Raises:
        SettingsError: one of them is no positive number.
    """
    default = Limits()
    return Limits(
        body=int(_positive("BODY", default.body)),
        rows=int(_positive("ROWS", default.rows)),
        concurrent=int(_positive("CONCURRENT", default.concurrent)),
        body_seconds=_positive("BODY_SECONDS", default.body_seconds),
        poll_seconds=_positive("POLL_SECONDS", default.poll_seconds),
    )


def load_places() -> Places:
    """The home and the registry by the settings; the bundle beside this package unless ``FERROFLOW_BUNDLE`` says."""
    settings = load_settings()
    bundle = Path(os.environ.get("FERROFLOW_BUNDLE") or _ROOT / "bundle")
    return Places(Home.of(settings), settings.tracking_uri, bundle)


def workers() -> int:
    """``FERROFLOW_SERVICE_WORKERS``: processes that answer; each follows the registry on its own."""
    return int(_positive("WORKERS", 1))


def _positive(name: str, default: float) -> float:
    text = os.environ.get(f"FERROFLOW_SERVICE_{name}")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise SettingsError(f"FERROFLOW_SERVICE_{name} is {text!r}; give a number above zero, or unset it.")
    return value
