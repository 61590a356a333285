"""Endpoints in the SQLite store: a row each, written as a whole."""

import sqlite3
from typing import Any

import msgspec

from notifier.errors import NotFoundError
from notifier.model import Endpoint, EndpointSecret, EndpointState
from notifier.store.queries import SQL
from notifier.store.rows import json_text, maybe_micros, maybe_seconds, micros, seconds
from notifier.store.sealing import Sealer

_SEALED = {"url": "endpoint_url", "headers": "endpoint_headers", "secrets": "endpoint_secrets"}
"""The columns that may hold secrets (a url's query does), and what the query `secrets` calls them."""

_event_types = msgspec.json.Decoder(tuple[str, ...])
_headers = msgspec.json.Decoder(dict[str, str])
_secrets = msgspec.json.Decoder(tuple[tuple[str, int, int | None], ...])


class _Row(msgspec.Struct, frozen=True):
    """The columns of `endpoint_columns`, in order."""

    id: str
    url: str
    event_types: str
    tenant: str | None
    condition: str | None
    description: str | None
    headers: str
    template: str | None
    rate_limit: float | None
    max_in_flight: int | None
    state: str
    state_reason: str | None
    state_changed_at: int
    secrets: str
    failing_since: int | None
    reported: int
    deleted: int
    created_at: int
    updated_at: int

    @classmethod
    def of(cls, endpoint: Endpoint) -> "_Row":
        secrets = [
            (each.secret, micros(each.created_at), maybe_micros(each.expires_at)) for each in endpoint.secrets
        ]
        return cls(
            id=endpoint.id,
            url=endpoint.url,
            event_types=json_text(endpoint.event_types),
            tenant=endpoint.tenant,
            condition=endpoint.when,
            description=endpoint.description,
            headers=json_text(endpoint.headers),
            template=endpoint.template,
            rate_limit=endpoint.rate_limit,
            max_in_flight=endpoint.max_in_flight,
            state=str(endpoint.state),
            state_reason=endpoint.state_reason,
            state_changed_at=micros(endpoint.state_changed_at),
            secrets=json_text(secrets),
            failing_since=maybe_micros(endpoint.failing_since),
            reported=int(endpoint.reported),
            deleted=int(endpoint.deleted),
            created_at=micros(endpoint.created_at),
            updated_at=micros(endpoint.updated_at),
        )

    def endpoint(self) -> Endpoint:
        secrets = _secrets.decode(self.secrets)
        return Endpoint(
            id=self.id,
            url=self.url,
            event_types=_event_types.decode(self.event_types),
            tenant=self.tenant,
            when=self.condition,
            description=self.description,
            headers=_headers.decode(self.headers),
            template=self.template,
            rate_limit=self.rate_limit,
            max_in_flight=self.max_in_flight,
            state=EndpointState(self.state),
            state_reason=self.state_reason,
            state_changed_at=seconds(self.state_changed_at),
            secrets=tuple(
                EndpointSecret(secret, seconds(created), maybe_seconds(expires))
                for secret, created, expires in secrets
            ),
            failing_since=maybe_seconds(self.failing_since),
            reported=bool(self.reported),
            deleted=bool(self.deleted),
            created_at=seconds(self.created_at),
            updated_at=seconds(self.updated_at),
        )


def endpoint_values(endpoint: Endpoint, sealer: Sealer) -> dict[str, Any]:
    """What the queries `add_endpoint` and `save_endpoint` take."""
    values = msgspec.structs.asdict(_Row.of(endpoint))
    return values | {
        column: sealer.seal(values[column], place, endpoint.id) for column, place in _SEALED.items()
    }


def all_endpoints(database: sqlite3.Connection, sealer: Sealer) -> list[Endpoint]:
    """Read every endpoint, oldest first. Raises StoreSealedError."""
    return [_opened(_Row(*columns), sealer) for columns in database.execute(SQL["endpoints"]).fetchall()]


def _opened(row: _Row, sealer: Sealer) -> Endpoint:
    texts = {column: sealer.open(getattr(row, column), place, row.id) for column, place in _SEALED.items()}
    return msgspec.structs.replace(row, **texts).endpoint()


def check_endpoint(database: sqlite3.Connection, endpoint_id: str) -> None:
    """Raise NotFoundError unless there is such an endpoint."""
    if database.execute(SQL["endpoint_exists"], {"id": endpoint_id}).fetchone() is None:
        raise NotFoundError("endpoint", endpoint_id)
