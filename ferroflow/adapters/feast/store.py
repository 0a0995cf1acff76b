"""A Feast store over the home folder: offline rows in Parquet; registry and online rows in SQLite, or on servers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import polars as pl
import psycopg
import redis
from feast import Entity, FeatureService, FeatureStore, FeatureView, RepoConfig
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ferroflow.adapters.contracts import stored_view
from ferroflow.adapters.feast.backends import online_config, registry_config
from ferroflow.adapters.feast.engine import BulkComputeEngineConfig, known_secrets, latest_rows, without_secrets, writer
from ferroflow.adapters.feast.offline import PolarsOfflineStoreConfig
from ferroflow.adapters.feast.online import PIPELINE
from ferroflow.adapters.feast.online_rows import PROJECT, plan_of, view_plan
from ferroflow.adapters.feast.plan import ReadPlan
from ferroflow.adapters.feast.project import FeastObject, all_objects, entity_types, objects, row_types
from ferroflow.adapters.feast.steady import SteadyFeatureStore
from ferroflow.adapters.home import Home
from ferroflow.core.errors import ServiceError, SpecError
from ferroflow.core.spec import PipelineSpec


def store(home: Home, specs: Sequence[PipelineSpec]) -> FeatureStore:
    """Feast over ``home``, with the objects of these pipelines applied; those of other pipelines stay as they are.

    Raises:
        SpecError: another pipeline has a view of the same name.
        ServiceError: the online store or the registry cannot be reached, or refuses.
    """
    wanted = all_objects(specs, home)
    feast = open_store(home)
    present = feast.list_feature_views() if wanted else []
    for view in present:
        _refuse_clash(view, wanted)
    _apply(feast, wanted, _gone(feast, present, specs, wanted))
    return feast


def store_to_write(home: Home, spec: PipelineSpec) -> FeatureStore:
    """``store`` of one pipeline, whose online store has a place for each of its views.

    Feast makes those places when a view is applied; another online store, or a new one, may have been set since.

    Raises:
        SpecError: another pipeline has a view of the same name.
        ServiceError: the online store or the registry cannot be reached, or refuses.
    """
    feast = store(home, [spec])
    views = [entry for entry in objects(spec, home) if isinstance(entry, FeatureView)]
    with _reached("online store", feast.config.online_store):
        feast._get_provider().update_infra(feast.project, [], views, [], [], partial=True)
    return feast


def open_store(home: Home) -> FeatureStore:
    """Feast over ``home``, as its registry is; registry and online rows lie where the settings say.

    Raises:
        SettingsError: an address in the settings lacks a part.
        ServiceError: the registry is on a server that cannot be reached.
    """
    home.feature_registry.parent.mkdir(parents=True, exist_ok=True)
    feast = SteadyFeatureStore(
        config=RepoConfig(
            project=PROJECT,
            provider="local",
            registry=registry_config(home),
            offline_store={"type": PolarsOfflineStoreConfig().type},
            online_store=online_config(home),
            batch_engine={"type": BulkComputeEngineConfig().type},
            entity_key_serialization_version=3,
        )
    )
    with _reached("feature registry", feast.config.registry):
        feast.registry  # noqa: B018 - connects
    return feast


def write_online(feast: FeatureStore, name: str, rows: pl.DataFrame) -> None:
    """Put rows of a view online, one an entity, in bulk; what is newer there stays.

    Args:
        rows: the entity's column, those of all features, and the source's two time columns.

    Raises:
        ServiceError: the online store cannot be reached, or refuses.
    """
    view = feast.get_feature_view(name)
    table = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
    latest = latest_rows(view, table, feast.config.entity_key_serialization_version)
    online = feast._get_provider().online_store
    with _reached("online store", feast.config.online_store):
        writer(online, feast.config, view)(view, latest, lambda _: None)


def online_plan(spec: PipelineSpec, home: Home) -> ReadPlan:
    """Where the pipeline's stored features lie online, for readers that do not know Feast."""
    columns = row_types(spec)
    kinds = entity_types(spec, columns)
    views = [
        view_plan(stored_view(view, columns), "int64" if kinds[view.entity].is_integer() else "text")
        for view in spec.stored
    ]
    return plan_of(spec.name, views, home)


def _refuse_clash(present: FeatureView, wanted: Sequence[FeastObject]) -> None:
    for entry in wanted:
        if not isinstance(entry, FeatureView) or entry.name != present.name:
            continue
        if entry.tags[PIPELINE] != present.tags.get(PIPELINE):
            raise SpecError(
                f"Stored features {entry.name!r} of {entry.tags[PIPELINE]!r} are in {present.tags.get(PIPELINE)!r} "
                f"already. Rename one."
            )


def _gone(
    feast: FeatureStore, present: Sequence[FeatureView], specs: Sequence[PipelineSpec], wanted: Sequence[FeastObject]
) -> list[FeatureView]:
    """Views of these pipelines that their descriptions no longer have."""
    names = {entry.name for entry in wanted if isinstance(entry, FeatureView)}
    ours = {spec.name for spec in specs}
    return [view for view in present if view.tags.get(PIPELINE) in ours and view.name not in names]


def _apply(feast: FeatureStore, wanted: Sequence[FeastObject], gone: Sequence[FeatureView]) -> None:
    """Apply what is not in the registry in this very form: an unchanged description costs a few reads."""
    registry, project = feast.registry, feast.project
    known: dict[tuple[str, str], FeastObject] = {
        (type(entry).__name__, entry.name): entry
        for entries in (
            registry.list_entities(project),
            registry.list_feature_views(project),
            registry.list_feature_services(project),
        )
        for entry in entries
    }
    changed = any(not _same(known.get((type(entry).__name__, entry.name)), entry) for entry in wanted)
    if changed or gone:
        with _reached("online store or the feature registry", feast.config.online_store, feast.config.registry):
            feast.apply(list(wanted), objects_to_delete=list(gone), partial=not gone)


@contextmanager
def _reached(what: str, *configurations: Any) -> Iterator[None]:
    """The servers' own errors as ours, without the passwords of their configurations."""
    try:
        yield
    except (psycopg.Error, redis.RedisError, SQLAlchemyError) as error:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        told = " ".join(without_secrets(str(cause), known_secrets(*configurations)).split())
        raise ServiceError(f"The {what} cannot be reached: {told} Start it, or see its address.") from None


def _same(known: FeastObject | None, entry: FeastObject) -> bool:
    if known is None:
        return False
    if isinstance(entry, FeatureView) and isinstance(known, FeatureView):
        return (known.schema, known.ttl, known.batch_source.path) == (entry.schema, entry.ttl, entry.batch_source.path)
    if isinstance(entry, FeatureService) and isinstance(known, FeatureService):
        return known.feature_view_projections == entry.feature_view_projections
    if isinstance(entry, Entity) and isinstance(known, Entity):
        return bool(known.value_type == entry.value_type)
    return False
