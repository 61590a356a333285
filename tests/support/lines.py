"""Connections without a network: lines whose peer is the test."""

import asyncio

from yarl import URL

from notifier.channels.line import Line
from notifier.channels.origins import Origin


class Wire(asyncio.Transport):
    """One end of a connection: what was written to it, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.unsent = 0
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take what is sent."""
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        """How much of it the system didn't take."""
        return self.unsent

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.aborted

    def abort(self) -> None:
        """Close it."""
        self.aborted = True


def new_line(origin: Origin | None = None) -> tuple[Line, Wire]:
    """A line on the running loop, and the wire that it is connected to."""
    line, wire = Line(asyncio.get_running_loop()), Wire()
    line.origin = origin or new_origin()
    line.leads_to = ("192.0.2.1", 80)
    line.connection_made(wire)
    return line, wire


def new_origin(host: str = "receiver.test") -> Origin:
    """Where a line leads."""
    return Origin(URL(f"http://{host}"))
