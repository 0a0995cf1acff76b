"""What a feature service's online rows are read by, asked of Feast once."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from feast import FeatureStore, Field
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.infra.online_stores.postgres_online_store.postgres import PostgreSQLOnlineStoreConfig
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig, RedisType
from feast.repo_config import RepoConfig
from feast.utils import _get_online_request_context
from feast.value_type import ValueType

from ferroflow.adapters.feast.online import PackedSqliteOnlineStoreConfig, row_layout, store_file
from ferroflow.adapters.feast.plan import (
    KeyKind,
    KeyPlan,
    PackedPlan,
    PostgresPlan,
    ReadPlan,
    RedisPlan,
    ViewPlan,
)
from ferroflow.core.errors import SpecError

_KEY_KINDS: dict[ValueType, KeyKind] = {
    ValueType.INT64: "int64",
    ValueType.INT32: "int32",
    ValueType.STRING: "text",
    ValueType.BYTES: "bytes",
    ValueType.UNIX_TIMESTAMP: "time",
}


def read_plan(store: FeatureStore, service: str, full_feature_names: bool = False) -> ReadPlan:
    """Views, keys, features and store of a feature service, as ``FeatureReader`` takes them.

    On-demand views are computed by Feast on top of what is read: a service that has some is refused. Give the reader a
    service of the stored views alone, and compute the rest yourself.

    Raises:
        SpecError: the service has on-demand views or is precomputed, the store is none that can be read, or a key is
            of a type that no store knows.
    """
    config, registry = store.config, store.registry
    wanted = store.get_feature_service(service)
    if wanted.precompute_online:
        raise SpecError(
            f"Feature service {service!r} is precomputed. Apply it without precompute_online to read it here."
        )
    if config.entity_key_serialization_version != 3:
        raise SpecError(
            f"The store writes entity keys of version {config.entity_key_serialization_version}; the reader knows 3. "
            f"Set entity_key_serialization_version: 3 and materialize again."
        )
    _, on_demand, _, _, _, grouped, *_ = _get_online_request_context(
        registry, config.project, wanted, full_feature_names
    )
    if on_demand:
        names = ", ".join(sorted(view.name for view in on_demand))
        raise SpecError(
            f"Feature service {service!r} has on-demand views, which a reader does not compute: {names}. Make a "
            f"service of the stored views alone."
        )
    place = _place(config, [view for view, _ in grouped])
    views = [_view(config, view, features, full_feature_names, place) for view, features in grouped]
    return ReadPlan(store=place, project=config.project, views=tuple(views))


def _view(
    config: RepoConfig,
    view: Any,
    features: list[str],
    full_feature_names: bool,
    place: PackedPlan | RedisPlan | PostgresPlan,
) -> ViewPlan:
    asked = view.projection.join_key_map or {}
    stored = dict(row_layout(view).features)
    order = [field.name for field in view.projection.features]
    name = view.projection.name_to_use()
    file = str(store_file(config, view)) if isinstance(place, PackedPlan) else None
    return ViewPlan(
        view=name,
        table=compute_versioned_name(view, config.registry.enable_online_feature_view_versioning),
        keys=tuple(
            _key(name, key, asked.get(key.name, key.name))
            for key in sorted(view.entity_columns, key=lambda key: key.name)
        ),
        features=tuple((feature, stored[feature]) for feature in sorted(features, key=order.index)),
        ttl_seconds=view.ttl.total_seconds() if getattr(view, "ttl", None) else None,
        prefix=f"{name}__" if full_feature_names else "",
        file=file if isinstance(place, PackedPlan) and file != place.path else None,
    )


def _key(view: str, key: Field, field: str) -> KeyPlan:
    # The column's own type: rows are written by it, whatever another view says of the same join key.
    found = key.dtype.to_value_type()
    kind = _KEY_KINDS.get(found)
    if kind is None:
        raise SpecError(
            f"Join key {key.name!r} of {view!r} is {found.name}; Feast's online stores know "
            f"{', '.join(known.name for known in _KEY_KINDS)}. Give the entity one of them."
        )
    return KeyPlan(name=key.name, field=field, kind=kind)


def _place(config: RepoConfig, views: list[Any]) -> PackedPlan | RedisPlan | PostgresPlan:
    online = config.online_store
    if isinstance(online, PackedSqliteOnlineStoreConfig):
        return PackedPlan(path=str(store_file(config, views[0]) if views else Path(online.path)))
    if isinstance(online, RedisOnlineStoreConfig):
        return RedisPlan(url=_redis(online))
    if isinstance(online, PostgreSQLOnlineStoreConfig):
        return PostgresPlan(url=_postgres(online), schema_name=online.db_schema or online.user)
    raise SpecError(
        f"The online store {getattr(online, 'type', online)!r} cannot be read directly; packed SQLite, Redis and "
        f"PostgreSQL can."
    )


def _redis(online: RedisOnlineStoreConfig) -> str:
    nodes, given = RedisOnlineStore._parse_connection_string(online.connection_string)
    if online.redis_type != RedisType.redis or len(nodes) != 1:
        raise SpecError("A cluster or sentinel of Redis cannot be read directly; a single server can.")
    options = dict(given)
    user, password = options.pop("username", None) or "", options.pop("password", None)
    scheme = "rediss" if options.pop("ssl", False) else "redis"
    database = options.pop("db", 0)
    login = "" if password is None else f"{quote(str(user), safe='')}:{quote(str(password), safe='')}@"
    query = f"?{urlencode(options)}" if options else ""
    return f"{scheme}://{login}{nodes[0]['host']}:{nodes[0].get('port', 6379)}/{database}{query}"


def _postgres(online: PostgreSQLOnlineStoreConfig) -> str:
    files = {"sslkey": online.sslkey_path, "sslcert": online.sslcert_path, "sslrootcert": online.sslrootcert_path}
    options = {name: value for name, value in {"sslmode": online.sslmode, **files}.items() if value}
    login = f"{quote(online.user, safe='')}:{quote(online.password, safe='')}"
    host = f"[{online.host}]" if ":" in online.host else online.host
    place = f"{host}:{online.port}/{quote(online.database, safe='')}"
    return f"postgresql://{login}@{place}?{urlencode(options)}"
