"""Requests as they are read, without any server."""

from __future__ import annotations

import orjson
import pytest

from serving.errors import Refused
from serving.requests import labels_of
from tests.serving_toy import contract


@pytest.mark.parametrize("value", ["<=50k", ">50K.", "high", 2])
def test_class_with_a_typo_is_refused_with_the_known_classes(value: object) -> None:
    told = contract("f", task="classification", target="income", positive=">50K", classes=("<=50K", ">50K"))
    labels = [{"prediction_id": "a", "value": "<=50K"}, {"prediction_id": "b", "value": value}]
    assert labels_of(told, orjson.dumps({"labels": labels[:1]}), 9) == [("a", 0.0)]
    with pytest.raises(Refused, match="'<=50K', '>50K'") as refused:
        labels_of(told, orjson.dumps({"labels": labels}), 9)
    assert (refused.value.status, refused.value.body["error"]["row"]) == (422, 1)
