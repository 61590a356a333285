"""Where log lines go and how they look: JSON where a machine reads them, colours where a person does.

Lines of the standard library's `logging` (aiohttp, asyncio) come out in the same shape.
"""

import logging
import sys
from typing import TextIO, cast

import structlog
from aiohttp.http import HttpProcessingError
from structlog.typing import Processor

LEVELS = ("debug", "info", "warning", "error")


class _Unfailing:
    """A stream that swallows what can't be written: a log reader that went away must stop no delivery."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return 0

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Set logging up for the process. `level` is one of `LEVELS`; `stream` is stderr unless given."""
    stream = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    unfailing = cast("TextIO", _Unfailing(stream))  # it has all that a logger calls
    renderers = _renderers(pretty=stream.isatty())
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *_shared(), *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(unfailing),
        cache_logger_on_first_use=False,
    )
    _configure_standard_library(number, unfailing, renderers)


def _shared() -> list[Processor]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


def _renderers(*, pretty: bool) -> list[Processor]:
    if pretty:
        # Without rich's tracebacks, which show local variables, and so the secrets among them.
        return [structlog.dev.ConsoleRenderer(colors=True, exception_formatter=structlog.dev.plain_traceback)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _without_request(record: logging.LogRecord) -> bool:
    """Take the quoted request out of what aiohttp logs of malformed HTTP."""
    if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
        record.exc_info = None
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.msg, record.args = "malformed HTTP was refused", ()
    return True


def _configure_standard_library(level: int, stream: TextIO, renderers: list[Processor]) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *_shared()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    # aiohttp quotes requests that it can't read, keys and all.
    logging.getLogger("aiohttp.server").addFilter(_without_request)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(level, logging.WARNING) if level > logging.DEBUG else level)
