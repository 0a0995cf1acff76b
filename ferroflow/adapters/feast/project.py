"""The projection of a pipeline's description into Feast objects: nothing is declared twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import polars as pl
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64, String

from ferroflow.adapters.feast.online import PIPELINE
from ferroflow.adapters.home import Home
from ferroflow.core.errors import SpecError
from ferroflow.core.features import AVAILABLE_AT, StoredFeatures
from ferroflow.core.spec import PipelineSpec

INGESTED_AT = "ingested_at"
"""Column that decides between stored rows of the same moment: what was computed from newer data wins."""

FeastObject: TypeAlias = Entity | FeatureView | FeatureService


def objects(spec: PipelineSpec, home: Home) -> list[FeastObject]:
    """A pipeline's entities, views and service (named as the pipeline); none without stored features."""
    columns = row_types(spec)
    kinds = entity_types(spec, columns)
    entities = {name: _entity(name, kind, spec) for name, kind in kinds.items()}
    views = [_view(stored, entities[stored.entity], kinds[stored.entity], spec, home) for stored in spec.stored]
    if not views:
        return []
    return [*entities.values(), *views, _service(spec, views)]


def all_objects(specs: Sequence[PipelineSpec], home: Home) -> list[FeastObject]:
    """The objects of several pipelines.

    Raises:
        SpecError: two pipelines name a view alike, or give one entity two types.
    """
    found: dict[tuple[str, str], FeastObject] = {}
    for spec in specs:
        for entry in objects(spec, home):
            key = (type(entry).__name__, entry.name)
            known = found.setdefault(key, entry)
            if isinstance(entry, Entity) and isinstance(known, Entity):
                _same_type(known, entry)
            elif known is not entry:
                raise SpecError(
                    f"Stored features {entry.name!r} are in {known.tags[PIPELINE]!r} and in {spec.name!r}. Rename one."
                )
    return list(found.values())


def row_types(spec: PipelineSpec) -> dict[str, pl.DataType]:
    """Column types of accepted rows, by the pipeline's schema; nothing is read."""
    declared = spec.schema.to_schema().columns
    kinds = {name: _instance(column.dtype.type) for name, column in declared.items()}
    return {**kinds, "row_id": pl.String(), INGESTED_AT: pl.Datetime("us", "UTC")}


def entity_types(spec: PipelineSpec, columns: Mapping[str, pl.DataType]) -> dict[str, pl.DataType]:
    """The key type of each entity: that of the request field it is looked up by.

    Raises:
        SpecError: a view's keys are of another type than the field, or neither numbers nor text.
    """
    found: dict[str, pl.DataType] = {}
    for stored in spec.stored:
        kind = stored.compute(pl.LazyFrame(schema=dict(columns))).collect_schema().get(stored.entity)
        asked = columns.get(stored.on)
        if kind is None or asked is None or kind != asked or found.get(stored.entity, kind) != kind:
            raise SpecError(
                f"Stored features {stored.name!r} have the entity {stored.entity!r} as {kind}, looked up by "
                f"{stored.on!r} of type {asked}. Give both one type."
            )
        if not (kind.is_integer() or kind == pl.String):
            raise SpecError(f"Entity {stored.entity!r} is {kind}; a key is a whole number or a text.")
        found[stored.entity] = kind
    return found


def _instance(kind: pl.DataType | type[pl.DataType]) -> pl.DataType:
    return kind() if isinstance(kind, type) else kind


def _entity(name: str, kind: pl.DataType, spec: PipelineSpec) -> Entity:
    value = ValueType.INT64 if kind.is_integer() else ValueType.STRING
    return Entity(name=name, join_keys=[name], value_type=value, owner=spec.owner)


def _view(stored: StoredFeatures, entity: Entity, kind: pl.DataType, spec: PipelineSpec, home: Home) -> FeatureView:
    features = stored.outputs(row_types(spec))
    odd = {name: str(found) for name, found in features.items() if found != pl.Float64}
    if odd:
        raise SpecError(f"Stored features {stored.name!r} give {odd}; stored features are Float64. Cast them.")
    return FeatureView(
        name=stored.name,
        entities=[entity],
        ttl=stored.ttl,
        schema=[
            Field(name=stored.entity, dtype=Int64 if kind.is_integer() else String),
            *(Field(name=name, dtype=Float64) for name in features),
        ],
        source=FileSource(
            name=f"{spec.name}_{stored.name}",
            path=str(home.offline(spec.name) / f"{stored.name}.parquet"),
            timestamp_field=AVAILABLE_AT,
            created_timestamp_column=INGESTED_AT,
        ),
        description=(stored.function.__doc__ or "").strip().split("\n")[0],
        tags={PIPELINE: spec.name},
        owner=spec.owner,
    )


def _service(spec: PipelineSpec, views: Sequence[FeatureView]) -> FeatureService:
    """All views, each looked up by the request's own field (which need not be called as the entity)."""
    asked = [
        view.with_join_key_map({stored.entity: stored.on}) if stored.on != stored.entity else view
        for view, stored in zip(views, spec.stored, strict=True)
    ]
    return FeatureService(
        name=spec.name, features=asked, description=spec.description, tags={PIPELINE: spec.name}, owner=spec.owner
    )


def _same_type(one: Entity, other: Entity) -> None:
    if one.value_type != other.value_type:
        raise SpecError(f"Entity {one.name!r} is a number in one pipeline and a text in another. Rename one.")
