"""One event to several recipients, through the API, the store and the workers; one of them mended later."""

from pathlib import Path
from typing import Any

from support.api import Api, serving

from notifier.config import Route
from notifier.model import Addressed, JobState

EVENT = {"type": "invoice.sent", "data": {"email": "ada@example.com", "name": "Ada"}}
TOLD = Addressed(to=("ada@example.com",), cc=("aide@example.com",))


def route(**changes: Any) -> tuple[Route, ...]:
    """A route by mail with a copy and a secret copy."""
    fields: dict[str, Any] = {
        "name": "invoice",
        "event": "invoice.*",
        "channel": "email",
        "to": ("{{ data.email }}",),
        "cc": "{{ data.aide }}",
        "bcc": ("audit@example.com", "ADA@example.com"),
        "template": "welcome",
        "category": "invoices",
    }
    return (Route(**(fields | changes)),)


async def states(api: Api, event_id: str) -> dict[str | None, JobState]:
    """Where the event's jobs stand, by whom they are for."""
    _, jobs = await api.notifier.store.event(event_id)
    return {each.destination: each.status for each in jobs}


async def test_each_recipient_has_a_job_and_a_mended_one_gets_its_mail(tmp_path: Path) -> None:
    """The others don't wait for it; requeued, it is for that very recipient, as the mended route says."""
    async with serving(tmp_path, routes=route()) as api:
        status, told = await api.post(EVENT)
        assert status == 202
        assert [(job["destination"], job["status"]) for job in told["jobs"]] == [
            ("ada@example.com", "PENDING"),
            (None, "FAILED"),
            ("audit@example.com", "PENDING"),
        ]
        await api.settled(2)
        sent = {message.destination: message.job for message in api.script.delivered}
        assert {job.addressed for job in sent.values()} == {Addressed(to=("ada@example.com",))}
        assert {job.category for job in sent.values()} == {"invoices"}
    failed = told["jobs"][1]["id"]
    async with serving(tmp_path, routes=route(cc="aide@example.com", locale="fr")) as api:
        assert (await api.call("POST", f"/v1/admin/jobs/{failed}/requeue"))[0] == 200
        await api.settled()
        (message,) = api.script.delivered
        assert (message.destination, message.job.addressed) == ("aide@example.com", TOLD)
        kept = await api.notifier.store.job(failed)
        assert (kept.status, kept.addressed, kept.locale) == (JobState.COMPLETED, TOLD, "fr")
        assert await states(api, told["id"]) == {
            "ada@example.com": JobState.COMPLETED,
            "aide@example.com": JobState.COMPLETED,
            "audit@example.com": JobState.COMPLETED,
        }


async def test_a_mended_recipient_who_had_the_mail_already_gets_no_second_one(tmp_path: Path) -> None:
    """Its job is withdrawn, with the reason."""
    async with serving(tmp_path, routes=route()) as api:
        _, told = await api.post(EVENT)
        await api.settled(2)
    failed = told["jobs"][1]["id"]
    async with serving(tmp_path, routes=route(cc="Ada <ADA@example.com>")) as api:
        await api.call("POST", f"/v1/admin/jobs/{failed}/requeue")
        await api.settled()
        kept = await api.notifier.store.job(failed)
        assert kept.status is JobState.CANCELLED
        assert kept.error is not None
        assert kept.error.code == "duplicate_recipient"
        assert api.script.delivered == []


async def test_an_event_asks_for_several_recipients_itself(tmp_path: Path) -> None:
    """`deliver` takes lists, cc and bcc; what is wrong with one of them is pointed at."""
    delivery = {
        "channel": "email",
        "template": "welcome",
        "to": ["a@b.example", "c@b.example"],
        "cc": "d@b.example",
    }
    async with serving(tmp_path) as api:
        status, told = await api.post({"type": "t", "data": {"name": "x"}, "deliver": [delivery]})
        assert (status, len(told["jobs"])) == (202, 3)
        await api.settled(3)
        assert {message.job.addressed for message in api.script.delivered} == {
            Addressed(to=("a@b.example", "c@b.example"), cc=("d@b.example",))
        }
        wrong = [delivery, {"channel": "webhook", "url": "https://a.example", "bcc": ["x"]}]
        status, problem = await api.post({"type": "t", "data": {}, "deliver": wrong})
        assert (status, [fault["pointer"] for fault in problem["errors"]]) == (422, ["/deliver/1/bcc"])
