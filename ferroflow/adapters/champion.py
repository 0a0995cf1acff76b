"""Which model serves: the registry's ``champion`` alias, read without MLflow.

The prediction service asks this every second or so, in a process that must stay light: one read-only SQLite query
(about a millisecond), or one REST request where the registry is a server.
"""

from __future__ import annotations

import base64
import http.client
import json
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ferroflow.adapters.home import Home
from ferroflow.core.addresses import public
from ferroflow.core.errors import RegistryError

ALIAS = "champion"
TAG_PACKAGE = "ferroflow.package"
TAG_FINGERPRINT = "ferroflow.fingerprint"
TAG_REFERENCE = "ferroflow.reference"

_SQLITE = "sqlite:///"
_VERSION = "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?"
_TAGS = "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?"
_GARBAGE = (KeyError, TypeError, AttributeError)  # what JSON of another form leads to
_NAMES = "SELECT name FROM registered_model_aliases WHERE alias = ? ORDER BY name"


@dataclass(frozen=True)
class ChampionRef:
    """The version that serves; ``package`` is relative to the home folder."""

    version: str
    package: str
    fingerprint: str


class ChampionReader:
    """Read-only view of the registry; opens, asks and closes each time, so it survives a registry that comes and goes.

    Args:
        home_root: the home folder; its SQLite registry is read unless ``tracking_uri`` says otherwise.
        tracking_uri: ``http(s)://…`` or ``sqlite:///…``.
        timeout: seconds to wait for a lock or an answer.
    """

    def __init__(self, home_root: Path, tracking_uri: str | None = None, *, timeout: float = 2.0) -> None:
        self.uri = tracking_uri or default_uri(Home(home_root))
        self.timeout = timeout

    def read(self, pipeline: str) -> ChampionRef | None:
        """The champion of a pipeline; None when the registry answers that there is none.

        Raises:
            RegistryError: the registry is away, or its champion was not registered by ferroflow.
        """
        found = self._rest(pipeline) if self.uri.startswith("http") else self._sqlite(pipeline)
        if found is None:
            return None
        version, tags = found
        if missing := [tag for tag in (TAG_PACKAGE, TAG_FINGERPRINT) if not tags.get(tag)]:
            raise RegistryError(
                f"Champion {pipeline} version {version} has no tag {', '.join(missing)}: it was registered by other "
                f"means. Move the alias back with: ferroflow models rollback {pipeline} --why '…'"
            )
        return ChampionRef(version, tags[TAG_PACKAGE], tags[TAG_FINGERPRINT])

    def pipelines(self) -> list[str]:
        """Names of all pipelines that have a champion, sorted.

        Raises:
            RegistryError: the registry is away.
        """
        if not self.uri.startswith("http"):
            return [str(row[0]) for row in self._query(_NAMES, (ALIAS,))]
        names: list[str] = []
        token = ""
        while True:
            page = self._get("registered-models/search", {"max_results": "1000", "page_token": token}) or {}
            try:
                for model in page.get("registered_models", []):
                    if any(alias.get("alias") == ALIAS for alias in model.get("aliases", [])):
                        names.append(str(model["name"]))
                token = str(page.get("next_page_token", ""))
            except _GARBAGE as error:
                raise self._not_mlflow() from error
            if not token:
                return sorted(names)

    def _sqlite(self, pipeline: str) -> tuple[str, dict[str, str]] | None:
        found = self._query(_VERSION, (pipeline, ALIAS))
        if not found:
            return None
        version = found[0][0]
        return str(version), dict(self._query(_TAGS, (pipeline, version)))

    def _query(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        if not self.uri.startswith(_SQLITE):
            scheme = self.uri.split(":", 1)[0]
            raise RegistryError(
                f"The service cannot read a registry at {scheme}:… itself. Start `mlflow server` in front of it "
                "and set FERROFLOW_TRACKING_URI to its http address."
            )
        path = Path(self.uri.removeprefix(_SQLITE))
        try:
            with closing(
                sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=self.timeout)
            ) as file:
                return file.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise RegistryError(f"The registry {path} cannot be read: {error}. Is the home folder right?") from error

    def _rest(self, pipeline: str) -> tuple[str, dict[str, str]] | None:
        answer = self._get("registered-models/alias", {"name": pipeline, "alias": ALIAS})
        if answer is None:
            return None
        try:
            version = answer["model_version"]
            return str(version["version"]), {tag["key"]: tag.get("value", "") for tag in version.get("tags", [])}
        except _GARBAGE as error:
            raise self._not_mlflow() from error

    def _get(self, path: str, query: dict[str, str]) -> dict[str, Any] | None:
        given = urllib.parse.urlencode({key: value for key, value in query.items() if value})
        # The address that is asked, and may be told in an error, has no credentials: they go into a header.
        place = public(self.uri)
        try:
            address = f"{place.rstrip('/')}/api/2.0/mlflow/{path}?{given}"
            asked = urllib.request.Request(address, headers=_authorization(self.uri))
            with urllib.request.urlopen(asked, timeout=self.timeout) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            if _says_none(error):
                return None
            raise RegistryError(f"The registry at {place} answered {error.code}. See its log.") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            told = str(error) or type(error).__name__
            raise RegistryError(f"The registry at {place} does not answer: {told}.") from error
        if not isinstance(found, dict):
            raise self._not_mlflow()
        return found

    def _not_mlflow(self) -> RegistryError:
        return RegistryError(f"What answers at {public(self.uri)} is no MLflow. Is FERROFLOW_TRACKING_URI right?")


def _authorization(uri: str) -> dict[str, str]:
    """The header for a user name and password in an address; empty without."""
    parts = urllib.parse.urlsplit(uri)
    if parts.username is None:
        return {}
    pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def default_uri(home: Home) -> str:
    """The address of the registry that lives in the home folder."""
    return f"{_SQLITE}{home.mlflow.absolute() / 'mlflow.db'}"


def _says_none(error: urllib.error.HTTPError) -> bool:
    """MLflow answers 404 for a missing model, and 400 for a model without that alias."""
    if error.code not in (400, 404):
        return False
    try:
        told = json.load(error)
    except (ValueError, OSError, http.client.HTTPException):
        return False
    if not isinstance(told, dict):
        return False
    missing = told.get("error_code") in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
    return missing and any(part in str(told.get("message")) for part in ("alias", "not found"))
