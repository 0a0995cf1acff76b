"""The same under another name, and never scheduled: what happens to ``tiny`` must not happen here."""

from __future__ import annotations

from dataclasses import replace

from ferroflow.core.spec import Schedules
from pipelines.tiny.spec import pipeline as tiny

pipeline = replace(tiny, name="other", schedules=Schedules(ingest=None, monitor=None))
