"""Which model answers, without any server: the registry may say what it likes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from serving.limits import Places
from serving.model import VersionNote
from serving.slots import Slots, keep
from tests.garbage import GARBAGE, answering
from tests.serving_toy import package, toy_home


@pytest.mark.parametrize("answer", GARBAGE)
def test_service_starts_from_the_last_good_model_when_the_registry_answers_garbage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    monkeypatch.setenv("FERROFLOW_PIPELINES", str(tmp_path / "more"))
    home = toy_home(tmp_path)
    fingerprint = package(home, 1)
    keep(home, "toy", home.packages("toy") / fingerprint, VersionNote(version="1", fingerprint=fingerprint))
    with answering(answer) as parrot, caplog.at_level(logging.INFO):
        uri = f"http://me:s3cret@127.0.0.1:{parrot.port}"
        slots = Slots(Places(home, uri, tmp_path / "none"), 60, lambda *_: None)
        slots.start()
        slots.stop()
    assert slots.served()["toy"].source == "last good"
    assert "registry away" in slots.reasons("toy")
    assert slots.trouble is not None
    assert "s3cret" not in slots.trouble + caplog.text


def test_service_starts_from_the_last_good_model_whatever_following_the_registry_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FERROFLOW_PIPELINES", str(tmp_path / "more"))
    home = toy_home(tmp_path)
    fingerprint = package(home, 1)
    keep(home, "toy", home.packages("toy") / fingerprint, VersionNote(version="1", fingerprint=fingerprint))
    slots = Slots(Places(home, None, tmp_path / "none"), 60, lambda *_: None)

    def broken() -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(slots, "follow", broken)
    slots.start()
    slots.stop()
    assert slots.served()["toy"].source == "last good"
