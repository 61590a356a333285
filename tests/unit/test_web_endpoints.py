"""What the API's document says of endpoints: every field that one sets or reads explains itself."""

from typing import Any

import msgspec
import pytest

from notifier.endpoints import EndpointChanges
from notifier.web.endpoint_answers import EndpointAnswer, SecretState
from notifier.web.endpoints import EndpointQuery, PauseRequest, ReplayRequest, RotateRequest, TestRequest

TYPES = (
    *(EndpointQuery, EndpointChanges, PauseRequest, RotateRequest, TestRequest, ReplayRequest),
    *(EndpointAnswer, SecretState),
)


def described(schema: Any) -> bool:
    """Whether a field's schema says what it means, itself or in what it is beside null."""
    return "description" in schema or any(map(described, schema.get("anyOf", ())))


@pytest.mark.parametrize("wanted", TYPES, ids=lambda each: each.__name__)
def test_every_field_is_described(wanted: type[msgspec.Struct]) -> None:
    """In words, from the type that is validated with or answered."""
    _, components = msgspec.json.schema_components([wanted], ref_template="{name}")
    properties = components[wanted.__name__]["properties"]
    assert [name for name, schema in properties.items() if not described(schema)] == []
