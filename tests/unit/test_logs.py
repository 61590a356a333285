"""Log lines: JSON for machines, colours for people, and never a reason to fail."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from notifier import logs


class Terminal(io.StringIO):
    """A stream that says a person reads it."""

    def isatty(self) -> bool:
        """Say so."""
        return True


class Gone(io.StringIO):
    """A stream whose reader went away."""

    def write(self, _text: str) -> int:
        """Fail as a pipe does."""
        raise BrokenPipeError

    def flush(self) -> None:
        """Fail as a pipe does."""
        raise BrokenPipeError


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave logging as it was found."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def test_a_line_is_json_where_no_person_reads_it() -> None:
    """Event, level, UTC time and what belongs to it; a traceback is a string."""
    stream = io.StringIO()
    logs.configure("info", stream)
    try:
        int("why")
    except ValueError:
        structlog.get_logger("x").exception("it broke", job="job_1", odd=object)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["job"]) == ("it broke", "error", "job_1")
    assert line["timestamp"].endswith("Z")
    assert "ValueError: invalid literal" in line["exception"]


def test_a_person_gets_words() -> None:
    """On a terminal a line is not JSON."""
    stream = Terminal()
    logs.configure("info", stream)
    structlog.get_logger().info("it runs", url="http://a")
    assert "it runs" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_what_is_below_the_level_is_left_out() -> None:
    """--log-level warning keeps info out."""
    stream = io.StringIO()
    logs.configure("warning", stream)
    structlog.get_logger().info("no")
    structlog.get_logger().warning("yes")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["yes"]


def test_the_standard_librarys_lines_have_the_same_shape() -> None:
    """What aiohttp or asyncio logs is JSON with its logger's name; their small talk is left out."""
    stream = io.StringIO()
    logs.configure("info", stream)
    logging.getLogger("aiohttp.server").info("small talk")
    logging.getLogger("aiohttp.server").error("Unhandled %s", "exception")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["logger"]) == (
        "Unhandled exception",
        "error",
        "aiohttp.server",
    )


def test_a_reader_that_went_away_stops_nobody() -> None:
    """Logging to a broken pipe raises nothing."""
    logs.configure("info", Gone())
    structlog.get_logger().info("unheard")
    logging.getLogger("asyncio").error("unheard")
