from __future__ import annotations

from pathlib import Path

import pytest

from ferroflow.adapters.home import Home
from ferroflow.adapters.settings import load_settings
from ferroflow.core.errors import SettingsError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "SEED", "MIRROR", "PREFECT_PORT", "TRACKING_URI", "ONLINE_STORE", "FEATURE_REGISTRY"):
        monkeypatch.delenv(f"FERROFLOW_{name}", raising=False)
    return tmp_path


def test_command_line_beats_environment_beats_file_beats_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().seed == 0
    (folder / "ferroflow.toml").write_text("seed = 1\n")
    assert load_settings().seed == 1
    monkeypatch.setenv("FERROFLOW_SEED", "2")
    assert load_settings().seed == 2
    assert load_settings(seed=3).seed == 3
    assert load_settings(seed=None).seed == 2


def test_home_is_absolute_whatever_was_written(folder: Path) -> None:
    assert load_settings().home == folder / ".ferroflow"
    assert load_settings(home=Path("a/b")).home == folder / "a" / "b"


def test_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERROFLOW_MIRROR", "")
    assert load_settings().mirror is None


def test_bad_value_names_the_setting_the_value_and_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERROFLOW_PREFECT_PORT", "many")
    with pytest.raises(SettingsError, match=r"prefect_port is 'many'.*FERROFLOW_PREFECT_PORT or ferroflow.toml"):
        load_settings()


def test_misspelt_setting_in_the_file_is_refused_with_the_known_ones(folder: Path) -> None:
    (folder / "ferroflow.toml").write_text("mirorr = 'x'\n")
    with pytest.raises(
        SettingsError, match=r"'mirorr' in ferroflow.toml is no setting. Known: feature_registry, home, .*mirror"
    ):
        load_settings()


def test_file_that_is_no_toml_is_told(folder: Path) -> None:
    (folder / "ferroflow.toml").write_text("seed: 1\n")
    with pytest.raises(SettingsError, match=r"ferroflow.toml cannot be read"):
        load_settings()


def test_the_shipped_settings_for_servers_are_settings(folder: Path) -> None:
    shipped = Path(__file__).parents[2] / "deploy" / "ferroflow.toml"
    (folder / "ferroflow.toml").write_text(shipped.read_text())
    settings = load_settings()
    assert settings.tracking_uri == "http://mlflow.internal:5000"
    assert settings.prefect_api_url == "http://prefect.internal:4200/api"
    assert Home.of(settings).online_store == "redis://redis.internal:6379/0"
    assert Home.of(settings).registry_address == "postgresql://feast@postgres.internal:5432/feast"


def test_without_a_setting_the_feature_store_lies_in_the_home() -> None:
    home = Home.of(load_settings())
    assert (home.online_store, home.registry_address) == (None, None)


@pytest.mark.parametrize(("name", "value"), [("ONLINE_STORE", "mysql://u:s3cret@h/d"), ("FEATURE_REGISTRY", "s3cret")])
def test_an_engine_that_is_not_known_is_refused_without_showing_its_address(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"FERROFLOW_{name}", value)
    with pytest.raises(
        SettingsError, match=rf"^Setting {name.lower()} names no known engine: it takes sqlite, .*postgresql"
    ) as refused:
        load_settings()
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("name", ["ONLINE_STORE", "FEATURE_REGISTRY"])
@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("postgresql://u:s3cret@h:many/d", "its port is no number"),
        ("postgresql://u:s3cret@h:99999/d", "its port is no number"),
        ("postgresql://u:s3/cret@h:5432/d", "its port is no number"),
        ("postgresql://u:s3cret@[::1/d", "its host cannot be read"),
    ],
)
def test_an_address_that_is_none_is_refused_without_showing_it(
    name: str, value: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"FERROFLOW_{name}", value)
    with pytest.raises(SettingsError, match=rf"^Setting {name.lower()} is no address: {why}") as refused:
        load_settings()
    assert "s3" not in str(refused.value) and f"FERROFLOW_{name}" in str(refused.value)


def test_passwords_of_engines_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERROFLOW_ONLINE_STORE", "redis://:s3cret@h/1")
    settings = load_settings()
    assert "s3cret" not in f"{settings!r} {settings} {Home.of(settings)!r}"
    assert Home.of(settings).online_store == "redis://:s3cret@h/1"
