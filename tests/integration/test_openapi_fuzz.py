"""Schemathesis reads `/openapi.json` and holds the API to it, with valid and invalid calls."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from support.api import KEYS, Api, serving

from notifier.config import Auth
from notifier.errors import Permanent
from notifier.unsubscribing import Unsubscription

briefly = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Fuzzed(NamedTuple):
    """A served notifier's document, and the ids of what it holds."""

    schema: BaseSchema
    ids: dict[str, list[str]]
    """By the part of the path that they stand below."""


@contextmanager
def served(directory: Path, auth: Auth) -> Iterator[Fuzzed]:
    """Serve a notifier from a thread of its own, as Schemathesis calls from this one."""
    begun: Future[tuple[str, dict[str, list[str]], Callable[[], object]]] = Future()

    async def serve() -> None:
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        async with serving(directory, auth=auth) as api:
            ids = await filled(api)
            url = str(api.client.make_url("/openapi.json"))
            begun.set_result((url, ids, partial(loop.call_soon_threadsafe, over.set)))
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    url, ids, end = begun.result(timeout=30)
    try:
        yield Fuzzed(schemathesis.openapi.from_url(url), ids)
    finally:
        end()
        thread.join(timeout=30)


def later() -> str:
    """Return a time that doesn't come while this runs."""
    return (datetime.now(UTC) + timedelta(days=1)).isoformat()


async def filled(api: Api) -> dict[str, list[str]]:
    """Store endpoints, suppressions, and jobs that are done, that failed and that wait; return all ids."""
    api.script.errors["https://down.example"] = Permanent("no", code="http_410", status_code=410)
    orders = [
        {"type": "t", "data": {}, "deliver": [{"channel": "webhook", "url": "https://up.example"}]},
        {"type": "t", "data": {}, "deliver": [{"channel": "webhook", "url": "https://down.example"}]},
        {"type": "order.paid", "data": {}, "deliver_at": later()},
    ]
    status, told = await api.post(orders, Authorization="Bearer ingest-key")
    assert status == 202
    await api.settled(2)
    left_alone = [{"recipient": f"{n}@example.com", "reason": "complained"} for n in range(60)]
    status, _ = await api.call("POST", "/v1/admin/suppressions", key="admin-key", json=left_alone)
    assert status == 200
    return {
        "events": [event["id"] for event in told],
        "jobs": [job["id"] for event in told for job in event["jobs"]],
        "unsubscribe": [
            api.notifier.unsubscribing.token(Unsubscription("email", f"{n}@example.com", "news", "job_1"))
            for n in range(2)
        ],
        "endpoints": [await subscribed(api, **extra) for extra in ({}, {"signature": "v1a", "tenant": "a"})],
    }


async def subscribed(api: Api, **extra: str) -> str:
    """Create an endpoint; return its id."""
    draft = {"url": "https://up.example/hooks", "event_types": ["order.*"], **extra}
    status, told = await api.call("POST", "/v1/admin/endpoints", key="admin-key", json=draft)
    assert status == 201
    endpoint_id: str = told["id"]
    return endpoint_id


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    """A notifier that asks for keys."""
    with served(tmp_path_factory.mktemp("keyed"), KEYS) as fuzzed:
        yield fuzzed


@pytest.fixture(scope="module")
def keyless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    """A notifier without keys."""
    with served(tmp_path_factory.mktemp("keyless"), Auth()) as fuzzed:
        yield fuzzed


def hold(fuzzed: Fuzzed, judge: Callable[[Any], None]) -> None:
    """Make valid and invalid calls of every operation; `judge` makes each, and says what must hold.

    What deletes comes last: the others are to find what is there.
    """
    operations = [found.ok() for found in fuzzed.schema.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) == fuzzed.schema.statistic.operations.total
    for operation in sorted(operations, key=lambda each: each.method == "delete"):
        for cases in strategies(operation, fuzzed):
            briefly(given(case=cases)(judge))()


def strategies(operation: Any, fuzzed: Fuzzed) -> Iterator[SearchStrategy[Any]]:
    """Yield valid calls, invalid ones where there is anything to be wrong, and those of what there is."""
    yield operation.as_strategy(GenerationMode.POSITIVE)
    if operation.body or operation.query:
        yield operation.as_strategy(GenerationMode.NEGATIVE)
    if operation.path_parameters:
        name = operation.path_parameters[0].name
        for known in next(ids for part, ids in fuzzed.ids.items() if f"/{part}/" in operation.path):
            yield operation.as_strategy(path_parameters={name: known})


def beyond_the_schema(case: Any) -> list[Any]:
    """Return the checks that a call can't be held to: what may be posted, no schema can say in full.

    A channel that isn't there, a key beside an array, a time too far ahead, a cursor made up, a url that
    is none, data that nests too deep: all are 422.
    """
    freely = {"postEvents", "previewEvent", "listJobs", "listEndpoints", "createEndpoint", "changeEndpoint"}
    freely |= {"pauseEndpoint", "rotateEndpoint", "testEndpoint", "listSuppressions", "addSuppressions"}
    name = case.operation.definition.raw["operationId"]
    if name == "unsubscribe":  # whatever is posted to a link unsubscribes
        return [negative_data_rejection]
    return [positive_data_acceptance] if name in freely else []


def test_with_a_key_the_api_answers_as_its_document_says(keyed: Fuzzed) -> None:
    """No 5xx; statuses, headers and bodies conform; what the document forbids is refused."""

    def judge(case: Any) -> None:
        case.call_and_validate(
            headers={"Authorization": "Bearer admin-key"}, excluded_checks=beyond_the_schema(case)
        )

    hold(keyed, judge)


def test_without_its_key_the_api_refuses_as_its_document_says(keyed: Fuzzed) -> None:
    """Every call that needs a key answers 401, whatever is sent; the others answer as documented."""

    def judge(case: Any) -> None:
        response = case.call()
        case.validate_response(response, excluded_checks=beyond_the_schema(case))
        assert (response.status_code == 401) == bool(case.operation.definition.raw.get("security"))

    hold(keyed, judge)


def test_a_notifier_without_keys_answers_as_its_document_says(keyless: Fuzzed) -> None:
    """The document of a notifier without keys asks for none, and holds."""

    def judge(case: Any) -> None:
        case.call_and_validate(excluded_checks=beyond_the_schema(case))

    hold(keyless, judge)
