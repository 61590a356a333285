"""Part `sending`: mails to Postfix's smtp-sink: POSTed as events, through the relays alone, and by others.

All on kept connections, as many each. What is measured runs on one CPU, the sink and the load on the other.
"""

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter

from msgspec import Struct

from benchmarks import events
from benchmarks.parts import Opened, Part, Plan
from benchmarks.processes import HOST, Process, free_port, installed
from benchmarks.results import Column, Figure, Values, ratio
from benchmarks.senders import MAIL, TEXT
from benchmarks.serving import Served, Setup, serving
from benchmarks.timing import Took, read_took
from benchmarks.wire import Load

CONNECTIONS = 10

END_TO_END = "notifier: POSTed, rendered as text, sent, recorded"
WITH_HTML = "notifier: POSTed, rendered as HTML and text, styles inlined, sent, recorded"
RELAYS = "notifier: its relays alone"
BARE = "bare aiosmtplib"
IN_C = "smtp-source, in C"

_CONFIG = """
[server]
port = 0

[channels.email]
from = "Example <no-reply@example.com>"

[[channels.email.relays]]
host = "127.0.0.1"
port = {port}
tls = "none"
connections = {connections}
messages = 1000000                      # kept for the whole run, as the bare pool's

[[routes]]
event = "order.*"
channel = "email"
to = "{{{{ data.customer.email }}}}"
template = "order"
"""

_SUBJECT = "Your order {{ data.order }} is on its way\n"
_TEXT = "Dear {{ data.customer.name }},\n" + TEXT
_HTML = """<!doctype html>
<html lang="en"><head><style>
p { margin: 0 0 16px } h1 { color: #111827 } td { padding: 8px 0 }
</style></head><body>
<h1>Thank you, {{ data.customer.name }}!</h1>
<table>
{%- for item in data["items"] %}
<tr><td>{{ item.title }}</td><td>{{ item.count }}</td><td>{{ item.price }} {{ data.currency }}</td></tr>
{%- endfor %}
</table>
<p>Your order {{ data.order }} will be with you in two or three days.</p>
</body></html>
"""
AS_TEXT = {"order/subject.txt": _SUBJECT, "order/body.txt": _TEXT}
AS_HTML = {"order/subject.txt": _SUBJECT, "order/body.html": _HTML}


class Size(Struct, frozen=True):
    """How many mails a run is made of."""

    count: int = 20_000
    """Sent by what only sends,"""
    posted: int = 8_000
    """and POSTed as events."""
    warm_up: int = 1_000


QUICK = Size(count=1_000, posted=500, warm_up=100)


@asynccontextmanager
async def _open(plan: Plan) -> AsyncIterator[Opened]:
    size = plan.size(Size(), QUICK)
    rows: dict[str, Callable[[Plan, Size], Awaitable[Values]]] = {
        END_TO_END: partial(_end_to_end, AS_TEXT),
        WITH_HTML: partial(_end_to_end, AS_HTML),
        RELAYS: partial(_sent_by, "pool"),
        BARE: partial(_sent_by, "aiosmtplib"),
        IN_C: _smtp_source,
    }
    notes = [f"{CONNECTIONS} connections; mails of {len(MAIL):,} bytes where they are not made of an event"]
    yield Opened({row: partial(measure, plan, size) for row, measure in rows.items()}, notes)


async def _end_to_end(templates: dict[str, str], plan: Plan, size: Size) -> Values:
    async with _sink(plan) as port:
        setup = Setup(_CONFIG.format(port=port, connections=CONNECTIONS), templates)
        async with serving(setup, cpus=plan.cpus, within=plan.folder) as served:
            load = served.load(plan, events.BODY)
            await load.open()
            await _mailed(served, load, size.warm_up)
            began, spent = perf_counter(), served.process.cpu
            await _mailed(served, load, size.posted)
            seconds, cpu = perf_counter() - began, served.process.cpu - spent
            await load.close()
            assert not await served.any_in("FAILED"), "not all were sent"
            return Took(count=size.posted, seconds=seconds, cpu=cpu).values


async def _mailed(served: Served, load: Load, count: int) -> None:
    """Post so many events; return once the mail of each is recorded as taken by the sink."""
    await load.post(count)
    await served.none_in("PENDING", "PROCESSING")


async def _sent_by(role: str, plan: Plan, size: Size) -> Values:
    given = map(str, (CONNECTIONS, size.count, size.warm_up))
    async with _sink(plan) as port:
        command = (sys.executable, "-m", "benchmarks.senders", role, str(port), *given)
        async with Process(*command, cpus=plan.cpus, talks=True) as process:
            return read_took(await process.output()).values


async def _smtp_source(plan: Plan, size: Size) -> Values:
    """Its connections are made within the time that is measured, which is its whole life."""
    options = ("-d", "-s", CONNECTIONS, "-m", size.count, "-l", len(MAIL))
    async with _sink(plan) as port:
        spent, began = os.times(), perf_counter()
        command = (installed("smtp-source"), *map(str, options), f"{HOST}:{port}")
        async with Process(*command, cpus=plan.cpus) as process:
            await process.succeeded()
            seconds, after = perf_counter() - began, os.times()
        cpu = after.children_user + after.children_system - spent.children_user - spent.children_system
        return Took(count=size.count, seconds=seconds, cpu=cpu).values


@asynccontextmanager
async def _sink(plan: Plan) -> AsyncIterator[int]:
    """Run smtp-sink, and give its port."""
    port = free_port()
    as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = (installed("smtp-sink"), *as_nobody, f"{HOST}:{port}", "128")
    async with Process(*command, cpus=plan.other_cpus) as process:
        await process.serves(port)
        yield port


PART = Part(
    name="sending",
    title="Mails to smtp-sink",
    columns={"rate": Column("mails a second"), "cost": Column("µs CPU each")},
    open=_open,
    figures=(
        Figure(name="email end to end ÷ bare aiosmtplib", of=ratio(END_TO_END, BARE), at_least=0.5),
        Figure(name="email with HTML, styles inlined ÷ bare aiosmtplib", of=ratio(WITH_HTML, BARE)),
        Figure(name="the relays alone ÷ bare aiosmtplib", of=ratio(RELAYS, BARE)),
    ),
    needs={"smtp-sink": "postfix", "smtp-source": "postfix"},
)
