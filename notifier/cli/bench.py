"""`notifier bench`: what this machine does with this configuration, and what limits it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from notifier.cli.program import (
    Failure,
    config_option,
    json_option,
    print_json,
    printable,
    read_config_made_up,
)
from notifier.cli.tables import counted, print_table
from notifier.errors import StoreError

if TYPE_CHECKING:
    from rich.progress import Progress

    from notifier.bench.figures import Latency, Spread
    from notifier.bench.report import Report
    from notifier.bench.verdict import Verdict
    from notifier.config import Config


@click.command(short_help="Measure this machine with this configuration.")
@click.option(
    "--seconds",
    type=click.FloatRange(1, 3600),
    default=60.0,
    show_default=True,
    help="How long to measure, beside a few for starting what is measured. Shorter is less certain.",
)
@json_option
@config_option
def bench(*, seconds: float, as_json: bool, config_path: Path) -> None:
    """Measure what this machine does with this configuration, and say what limits it.

    Measured are the disk under the store, and a server of its own that is posted events and delivers them to
    receivers on this machine. Nothing leaves it, whatever is configured, and no key is needed. The
    configured store is not touched, and a server may be running on it; what is written beside it is removed.
    """
    from notifier import logs, server
    from notifier.bench.measuring import Measurement

    config = read_config_made_up(config_path)
    logs.configure("error")
    with _ended_alike(), _folder(config, seconds) as folder, _progress(seconds) as progress:
        try:
            report = server.run(Measurement(config, folder, seconds, progress).report())
        except (OSError, StoreError) as error:
            raise Failure(f"{folder.parent}: can't be measured: {error}") from error
    if as_json:
        print_json(report)
    else:
        _tell(report)


@contextmanager
def _ended_alike() -> Iterator[None]:
    """Have SIGTERM, and a terminal that goes away, end it as Ctrl-C does: nothing stays behind."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _folder(config: "Config", seconds: float) -> Iterator[Path]:
    """Make a folder beside the configured store, on the same disk, and remove it with all that is in it."""
    from tempfile import TemporaryDirectory

    from notifier.bench.disk import check_room
    from notifier.store import folder_of

    place = folder_of(config.store.url, config.directory)
    try:
        made = TemporaryDirectory(prefix="notifier-bench-", dir=place)
    except OSError as error:
        raise Failure(f"{place}: the store's folder can't be written to: {error.strerror}") from error
    try:
        check_room(place, seconds)
        yield Path(made.name)
    finally:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not leave half of it
        made.cleanup()
        signal.signal(signal.SIGINT, before)


class _Lines:
    """Tells of each measure in a line, for whoever is no terminal."""

    def begin(self, what: str) -> None:
        """See `Watcher.begin`."""
        click.echo(f"measuring: {what}", err=True)

    def advance(self, seconds: float) -> None:
        """Say nothing."""


class _Bar:
    """A bar that is drawn between turns alone: a thread that did so all the time would be measured too."""

    def __init__(self, bar: "Progress", seconds: float) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=seconds)

    def begin(self, what: str) -> None:
        """See `Watcher.begin`."""
        self._bar.update(self._task, description=what, refresh=True)

    def advance(self, seconds: float) -> None:
        """See `Watcher.advance`."""
        self._bar.update(self._task, advance=seconds, refresh=True)


@contextmanager
def _progress(seconds: float) -> Iterator[_Lines | _Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as bar:
        yield _Bar(bar, seconds)


# What is told ------------------------------------------------------------------------------------

_HEADS = ("MEASURED", "A SECOND", "LEAST", "MOST", "P50 MS", "P99 MS", "CPU µS")
_NAMES = {"webhook": "webhooks", "email": "mails"}
_PLACES = {"workers": "workers.concurrency", "connections": "connections to the relay"}


def _tell(report: "Report") -> None:
    machine = report.machine
    where = f"{counted(machine.cores, 'core')}, Python {machine.python}, store in {machine.folder}"
    click.echo(printable(f"notifier {machine.notifier}, {where}"))
    print_table(_HEADS, _rows(report), always_headed=True)
    click.echo(
        "Of what is accepted and delivered, p50 and p99 are those at half of the rate; CPU is the server's."
    )
    click.echo("\nWhat limits")
    for name, verdict in _limits(report):
        click.echo(f"  {name}: {verdict.because}\n    helps: {verdict.helps}")
    click.echo("\nReceivers that take their time get at most")
    for line in _receivers(report):
        click.echo(f"  {line}")
    click.echo("\n" + "\n".join(report.notes))


def _rows(report: "Report") -> "Iterator[tuple[str, ...]]":
    from notifier.bench.disk import AT_ONCE

    accept = report.accept
    yield _row("4 KiB appended and synced", None, report.fsync)
    for name, commit in (("one by one", report.commit), (f"{AT_ONCE} at once", report.commits_at_once)):
        yield _row(f"events committed, {name}", commit.rate, commit.latency)
    yield _row("events accepted", accept.rate, accept.latency, accept.cpu_us)
    yield _row(f"events accepted, arrays of {accept.array}", accept.array_rate)
    for each in report.deliver:
        yield _row(f"{_NAMES[each.channel]} delivered", each.rate, each.latency, each.cpu_us)


def _row(
    name: str, rate: "Spread | None", latency: "Latency | None" = None, cpu_us: float | None = None
) -> tuple[str, ...]:
    rates = ("", "", "") if rate is None else (rate.median, rate.least, rate.most)
    times = ("", "") if latency is None else (f"{latency.p50_ms:.2f}", f"{latency.p99_ms:.2f}")
    cpu = "" if cpu_us is None else f"{cpu_us:.0f}"
    return name, *(f"{each:,.0f}" if each else "" for each in rates), *times, cpu


def _limits(report: "Report") -> "Iterator[tuple[str, Verdict]]":
    yield "accepting", report.accept.limit
    for each in report.deliver:
        yield _NAMES[each.channel], each.limit


def _receivers(report: "Report") -> Iterator[str]:
    for each in report.deliver:
        name = _NAMES[each.channel]
        known = [receivers for receivers in report.receivers if receivers.channel == each.channel]
        rates = ", ".join(f"{found.at_most:,.0f} a second at {found.takes_ms:,} ms" for found in known)
        yield f"{name}: {rates} ({_PLACES[each.places_are]} = {each.places:,})"
