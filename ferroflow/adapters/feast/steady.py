"""A Feast store whose views can be read at any time, whatever a materialization is doing or how it ended.

Feast marks a view in the registry while it is materialized, and readers that share the registry refuse it until the
mark is gone; one that is killed leaves the mark for good, and one that fails afterwards leaves "generated", which no
setting lets readers read. Here the mark is never made, so that not even Feast's own servers see one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from feast import FeatureStore, FeatureViewState
from feast.infra.registry.base_registry import BaseRegistry


class SteadyFeatureStore(FeatureStore):
    """Feast's store; materializing takes no view away from its readers."""

    def _create_registry(self) -> BaseRegistry:
        registry: BaseRegistry = super()._create_registry()
        registry.serve_features_while_materializing = True  # for the marks of other programs
        return registry

    def _get_feature_views_to_materialize(
        self, feature_views: Sequence[str] | None, version: int | None = None
    ) -> list[Any]:
        # Feast leaves a view alone whose state nobody ever said; once it is materialized it becomes available.
        found = super()._get_feature_views_to_materialize(feature_views, version)
        return [_stateless(view) for view in found]


def _stateless(view: Any) -> Any:
    if not hasattr(view, "state"):
        return view
    without = copy.copy(view)
    without.state = FeatureViewState.STATE_UNSPECIFIED
    return without
