"""Reads what is sent in bulk, so that Ctrl-C ends even a read that nobody writes to."""

import os
import select
import signal
import socket
import stat
import sys
from pathlib import Path
from typing import Self

from notifier.cli.program import usage_error


class Input:
    """A file or stdin (`-`), as a stream whose reads give what there is. Use it in the main thread.

    A signal that comes just before a read blocks would be noticed only after it; so what is blocked on is
    the input or a signal, whichever comes first.
    """

    def __init__(self, name: str) -> None:
        """Open it; one that can't be opened is a usage error."""
        try:
            self._file = (
                sys.stdin.fileno() if name == "-" else os.open(Path(name), os.O_RDONLY | os.O_CLOEXEC)
            )
        except OSError as error:
            raise usage_error(f"{name}: {error.strerror}") from None
        self._owned = name != "-"

    @property
    def size(self) -> int | None:
        """How many bytes there are to read; None where only the end will tell."""
        status = os.fstat(self._file)
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def __enter__(self) -> Self:
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._before = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._before)
        self._woken.close()
        self._waker.close()
        if self._owned:
            os.close(self._file)

    def read1(self, size: int, /) -> bytes:
        """Wait for something to read, and read it; nothing at the end. Ctrl-C is a KeyboardInterrupt."""
        while True:
            ready, _, _ = select.select([self._file, self._woken], [], [])
            if self._woken in ready:
                self._woken.recv(1024)
            if self._file in ready:
                return os.read(self._file, size)
