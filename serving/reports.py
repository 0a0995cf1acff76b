"""Evidently's pages, by name: nothing but a report's own file is ever read.

The pages come with their own scripts, made from logged values: the browser gives them no origin, so that they can
neither call this service nor read what it stored.
"""

from __future__ import annotations

import re
from pathlib import Path

from ferroflow.adapters.home import Home

PREFIX = "/reports/"
KIND = "text/html; charset=utf-8"
HEADERS = (("content-security-policy", "sandbox allow-scripts"), ("x-content-type-options", "nosniff"))
NAME = "[A-Za-z0-9_-][A-Za-z0-9_.-]*"
_PATH = re.compile(rf"/reports/({NAME})/({NAME}\.html)", re.ASCII)


def page_of(home: Home, path: str) -> bytes | None:
    """The page of a request's path ``/reports/{pipeline}/{name}.html``; None when there is none of that name."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    folder = home.reports(found[1])
    return _read(folder, folder / found[2])


def _read(folder: Path, file: Path) -> bytes | None:
    """The bytes of a plain file in a folder; a link that leads out of it is not followed."""
    try:
        if file.resolve(strict=True).parent != folder.resolve(strict=True):
            return None
        return file.read_bytes()
    except OSError:
        return None
