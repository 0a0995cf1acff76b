"""Rows of the prediction log: what was asked, what the graph was fed, and what it answered."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
import polars as pl

from ferroflow.adapters.predictions import microseconds
from serving.model import Answer, Model


def log_rows(
    model: Model, rows: Sequence[Any], frame: pl.DataFrame, answer: Answer, now: datetime, *, degraded: bool
) -> list[dict[str, Any]]:
    """One log row a request row; features are the graph's own float32 values, so that they can be compared."""
    at = microseconds(now)
    time = model.contract.time
    events: list[int | None] = frame[time].dt.epoch("us").to_list() if time in frame.columns else [None] * len(rows)
    fed = answer.vectors.frame.with_columns(pl.selectors.float().cast(pl.Float32)).to_dicts()
    watermarks = orjson.dumps(answer.vectors.watermarks, default=list).decode()
    return [
        {
            "id": name,
            "at": at,
            "version": model.version,
            "event_time": event,
            "inputs": orjson.dumps(asked).decode(),
            "features": orjson.dumps(features).decode(),
            "prediction": float(prediction),
            "degraded": degraded,
            "watermarks": watermarks,
        }
        for name, event, asked, features, prediction in zip(
            prediction_ids(len(rows), now), events, rows, fed, answer.predictions, strict=True
        )
    ]


def prediction_ids(count: int, now: datetime) -> list[str]:
    """Names that sort by time (RFC 9562, version 7): 48 bits of milliseconds, then 74 random bits."""
    milliseconds = microseconds(now) // 1_000
    noise = os.urandom(10 * count)
    return [_uuid7(milliseconds, int.from_bytes(noise[10 * i : 10 * i + 10])) for i in range(count)]


def _uuid7(milliseconds: int, noise: int) -> str:
    high = (milliseconds << 16) | 0x7000 | (noise & 0xFFF)
    low = (0b10 << 62) | (noise >> 12) & ((1 << 62) - 1)
    return f"{high:016x}{low:016x}"
