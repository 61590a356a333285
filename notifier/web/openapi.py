"""The OpenAPI 3.1 document, generated from the calls that answer and the types that validate."""

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from notifier.ingest import MAX_EVENTS
from notifier.web import answers
from notifier.web.auth import Scope
from notifier.web.calls import Answer, Call
from notifier.web.problems import MEDIA_TYPE, Problem

_REF = "#/components/schemas/{name}"
_PLACE = re.compile(r"\{(\w+)\}")
_BATCH_SIZE = {"minItems": 1, "maxItems": MAX_EVENTS}
_WITH_HEADER = {401: "WWW-Authenticate", 503: "Retry-After"}
_WEBHOOK = {"properties": {"channel": {"const": "webhook"}}}
_TO_A_URL = {
    "required": ["url"],
    "properties": {"url": {"type": "string"}, "to": {"type": "null"}},
}
_TO_A_RECIPIENT = {
    "required": ["to"],
    "properties": {"to": {"type": ["string", "array"]}, "url": {"type": "null"}},
}
_ONLY_EMAIL = {
    "if": {"properties": {"channel": {"const": "email"}}},
    "then": {"required": ["template"], "properties": {"template": {"type": "string"}}},
    "else": {"properties": {"cc": False, "bcc": False, "category": False}},
}


def calls(others: Sequence[Call], *, keys_asked: bool) -> list[Call]:
    """Return the call that answers the document of the others and of itself."""

    async def show(_request: web.Request) -> web.Response:
        return answers.respond(written)

    itself = Call(
        method="GET",
        path="/openapi.json",
        name="openapi",
        summary="Read this document",
        scope=Scope.OPEN,
        handler=show,
        answers={200: Answer("The OpenAPI 3.1 document.", dict[str, Any])},
    )
    written = msgspec.Raw(msgspec.json.encode(document([*others, itself], keys_asked=keys_asked)))
    return [itself]


def document(all_calls: Sequence[Call], *, keys_asked: bool) -> dict[str, Any]:
    """Describe calls. Without `keys_asked`, no call needs a key."""
    schemas, components = _schemas(all_calls)
    paths: dict[str, dict[str, Any]] = {}
    for call in all_calls:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call, schemas, keys_asked)
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Notifier",
            "version": version("notifier"),
            "description": "A durable, self-hosted dispatcher for webhooks and email.",
        },
        "paths": paths,
        "components": {"schemas": components},
    }
    if keys_asked:
        described["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return described


def _schemas(all_calls: Iterable[Call]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """Return the schema of every type in use, and those they refer to by name."""
    types: list[Any] = [Problem]
    for call in all_calls:
        types += [answer.type for answer in call.answers.values() if answer.type is not None]
        types += call.body.values()
        types += [] if call.query is None else [call.query]
    unique = list(dict.fromkeys(types))
    found, components = msgspec.json.schema_components(unique, ref_template=_REF)
    components = _portable(components)
    components["Delivery"] |= {"if": _WEBHOOK, "then": _TO_A_URL, "else": _TO_A_RECIPIENT}
    components["Delivery"]["allOf"] = [_ONLY_EMAIL]
    return dict(zip(unique, _portable(found), strict=True)), components


def _portable(schema: Any) -> Any:
    r"""Write Python's `\Z` as ECMA-262's `$`, which JSON Schema's patterns are in."""
    if isinstance(schema, Mapping):
        return {
            name: value.replace(r"\Z", "$")
            if name == "pattern" and isinstance(value, str)
            else _portable(value)
            for name, value in schema.items()
        }
    return [_portable(item) for item in schema] if isinstance(schema, (list, tuple)) else schema


def _operation(call: Call, schemas: Mapping[Any, Any], keys_asked: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": call.name,
        "summary": call.summary,
        "parameters": [*_parameters(call)],
        "responses": {
            **{str(status): _answer(answer, schemas) for status, answer in call.answers.items()},
            **{str(status): _problem(status) for status in sorted(_statuses(call, keys_asked))},
        },
    }
    if call.body:
        content = {kind: {"schema": _body(schemas[body])} for kind, body in call.body.items()}
        operation["requestBody"] = {"required": call.body_required, "content": content}
    if keys_asked and call.scope.needs_key:
        operation["security"] = [{"key": []}]
        operation["x-scope"] = call.scope
    return operation


def _parameters(call: Call) -> Iterable[dict[str, Any]]:
    for name in _PLACE.findall(call.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    for header in call.headers:
        yield {
            "name": header.name,
            "in": "header",
            "description": header.description,
            "schema": {"type": "string", "pattern": header.pattern},
        }
    if call.query is not None:
        yield from _query_parameters(call.query)


def _query_parameters(query: type[Struct]) -> Iterable[dict[str, Any]]:
    """Describe a struct's fields as parameters; a query has no null, so what may be left out just is."""
    for field in msgspec.structs.fields(query):
        (schema,), components = msgspec.json.schema_components([field.type], ref_template=_REF)
        described = {
            "name": field.encode_name,
            "in": "query",
            "schema": _portable(_inlined(schema, components)),
        }
        yield described | {"required": True} if field.required else described


def _inlined(schema: dict[str, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema without its null and its reference."""
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind != {"type": "null"}]
    only: dict[str, Any] = kinds[0]
    return components[only["$ref"].rpartition("/")[2]] if "$ref" in only else only


def _answer(answer: Answer, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    text = {"schema": {"type": "string"}}
    content = {answer.media_type: text if answer.type is None else {"schema": schemas[answer.type]}}
    return {"description": answer.description, "content": content | dict.fromkeys(answer.others, text)}


def _statuses(call: Call, keys_asked: bool) -> set[int]:
    """Return the statuses that a call fails with; without keys, any may be refused as not local (403)."""
    common = {400, 500} if keys_asked else {400, 403, 500}
    keyed = {401, 403} if keys_asked and call.scope.needs_key else set()
    return {*common, *keyed, *call.problems}


def _problem(status: int) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": HTTPStatus(status).phrase,
        "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(name=Problem.__name__)}}},
    }
    if status == HTTPStatus.BAD_REQUEST:
        # What isn't HTTP at all never reaches us: the server below answers it, in plain text.
        described["content"]["text/plain"] = {"schema": {"type": "string"}}
    if status in _WITH_HEADER:
        name = _WITH_HEADER[status]
        described["headers"] = {name: {"schema": {"type": "string"}, "required": True}}
    return described


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    """Bound the arrays of events, which the types leave open."""
    if schema.get("type") == "array":
        return schema | _BATCH_SIZE
    kinds = [_body(each) for each in schema.get("anyOf", [])]
    return schema | {"anyOf": kinds} if kinds else schema
