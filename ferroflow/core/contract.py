"""The serving contract (``serving.json``): all the prediction service needs to know about a model.

Imported by the service: pydantic and the standard library only.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CellRule(_Part):
    """One declared cleaning of a field, as training had it; times are ISO 8601 texts."""

    rule: Literal["default", "clip", "trim", "replace"]
    value: str | int | float | None = None  # of a default
    low: int | float | None = None
    high: int | float | None = None
    characters: str = ""  # that are trimmed, the blanks among them
    values: tuple[tuple[str | int | float, str | int | float | None], ...] = ()  # what is replaced, and by what


class Field(_Part):
    """One field of a request row; ``minimum`` and ``maximum`` are inclusive and hold after ``cleaning``."""

    name: str
    type: Literal["number", "integer", "text", "time"]
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str | int, ...] | None = None
    description: str = ""
    cleaning: tuple[CellRule, ...] = ()  # in this order

    @property
    def optional(self) -> bool:
        """Whether a request may leave the field out: something stands for what is missing."""
        return any(rule.rule == "default" for rule in self.cleaning)


class StoredView(_Part):
    """Features looked up by the value of the request field ``on``, missing when older than ``ttl_seconds``."""

    view: str
    entity: str
    on: str
    ttl_seconds: float
    features: tuple[str, ...]


class ServingContract(_Part):
    """What is asked for, how the model's inputs are made of it, and what is answered."""

    pipeline: str
    model: str
    fingerprint: str  # of the trained model
    task: Literal["regression", "classification"]
    target: str
    target_minimum: float | None = None  # inclusive, by the schema: labels outside are kept, and judge nothing
    target_maximum: float | None = None
    positive: str | None = None
    classes: tuple[str, ...] = ()  # all values of a class, as text; empty: not known when the model was packaged
    time: str | None = None  # the request field that is the event time (ISO 8601, an offset or UTC)
    fields: tuple[Field, ...]
    null_values: tuple[str, ...] = ("",)  # what a text says (without the blanks around it) when it is missing
    request_features: tuple[str, ...] = ()  # "module:name"
    stored: tuple[StoredView, ...] = ()
    inputs: dict[str, Literal["float", "int", "text"]]  # of the ONNX graph, in order
    lineage: dict[str, str] = {}  # station -> fingerprint
    feature_code: str = ""  # digest of the modules that hold the request features
