"""Settings, read in one place: command line > environment (``FERROFLOW_…``) > ``ferroflow.toml`` > defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from ferroflow.core.errors import SettingsError

FILE = "ferroflow.toml"
PREFIX = "FERROFLOW_"

ENGINES = {"online_store": ("redis", "rediss", "postgresql"), "feature_registry": ("postgresql",)}
"""Setting -> schemes of the addresses it takes, beside ``sqlite``."""


class Settings(BaseSettings):
    """Where state lies, where data is read, and which ports the servers take."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    home: Path = Field(default=Path(".ferroflow"), description="The one folder that holds all state.")
    mirror: str | None = Field(default=None, description="Folder or address that is read before the public sources.")
    simulate: bool = Field(default=False, description="Use the pipelines' simulators instead of their sources.")
    seed: int = Field(default=0, ge=0, description="Seed of the simulators.")
    minutes: float | None = Field(default=None, gt=0, description="Time for one search, instead of the pipelines' own.")
    prefect_port: int = Field(default=4200, ge=1, le=65535, description="Port that the Prefect server prefers.")
    mlflow_port: int = Field(default=5000, ge=1, le=65535, description="Port that the MLflow server prefers.")
    service_port: int = Field(default=3000, ge=1, le=65535, description="Port that the prediction service prefers.")
    tracking_uri: str | None = Field(default=None, description="MLflow's address; otherwise SQLite in the home.")
    prefect_api_url: str | None = Field(default=None, description="A Prefect server that is not ours.")
    online_store: SecretStr = Field(
        default=SecretStr("sqlite"),
        description="Where the service reads stored features: sqlite (in the home), redis://... or postgresql://...",
    )
    feature_registry: SecretStr = Field(
        default=SecretStr("sqlite"), description="Feast's registry: sqlite (in the home) or postgresql://..."
    )
    pipelines: str | None = Field(default=None, description="More folders with pipelines, joined like PATH.")

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("online_store", "feature_registry")
    @classmethod
    def _known_engine(cls, address: SecretStr, info: ValidationInfo) -> SecretStr:
        engines, given = ENGINES[str(info.field_name)], address.get_secret_value()
        if given == "sqlite":
            return address
        try:
            parts = urlsplit(given)
            _ = parts.port  # only asking for it tells whether it is a number
        except ValueError as error:
            port = str(error).startswith("Port")
            why = "its port is no number from 0 to 65535" if port else "its host cannot be read"
            raise ValueError(
                f"is no address: {why}. Special characters of a user or password are written as %XX"
            ) from None
        if parts.scheme not in engines:
            known = ", ".join(f"{engine}://..." for engine in engines)
            raise ValueError(f"names no known engine: it takes sqlite, {known}")
        return address

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leave out ``.env`` and secret files: three sources are enough to look through."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, Path(FILE))


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; ``overrides`` come from the command line, and None among them means: not given.

    Raises:
        SettingsError: a value has no meaning, or ``ferroflow.toml`` has a name that is no setting.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError("; ".join(_told(item, given) for item in error.errors())) from None
    except ValueError as error:  # the TOML reader's own
        raise SettingsError(f"{FILE} cannot be read: {error}. Mend it or remove it.") from error


def _told(item: Any, given: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{name!r} in {FILE} is no setting. Known: {', '.join(sorted(Settings.model_fields))}."
    where = "the command line" if name in given else f"{PREFIX}{name.upper()} or {FILE}"
    meaning = Settings.model_fields[name].description if name in Settings.model_fields else ""
    if name in ENGINES:  # an address may hold a password
        problem = f"Setting {name} {item.get('ctx', {}).get('error', 'is no text')} (what was given is not shown)."
    else:
        problem = f"Setting {name} is {item['input']!r}: {item['msg'].lower()}."
    return f"{problem} {meaning} Change it on {where}, or leave it out."
