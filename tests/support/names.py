"""A scripted resolver: what names lead to, look-up by look-up, and how look-ups fail."""

import asyncio
import socket

from aiohttp.abc import AbstractResolver, ResolveResult

Addresses = list[str] | BaseException
"""What one look-up says: addresses, or what is raised."""


class Names(AbstractResolver):
    """Each look-up of a name gets its next answer, the last one for good; `hangs` are never answered.

    `Names(rebound_test=[["127.0.0.2"], ["127.0.0.1"]])` is about `rebound.test`.
    """

    def __init__(self, **answers: list[Addresses]) -> None:
        self.answers = {name.replace("_", "."): list(lists) for name, lists in answers.items()}
        self.asked: list[str] = []
        self.hangs: set[str] = set()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Answer by the script, or as a resolver does that knows no such name."""
        self.asked.append(host)
        name = host.rstrip(".")
        if name in self.hangs:
            await asyncio.Event().wait()
        found = self._next(name)
        if isinstance(found, BaseException):
            raise found
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in found
        ]

    def _next(self, name: str) -> Addresses:
        answers = self.answers.get(name)
        if answers is None:
            return socket.gaierror(socket.EAI_NONAME, "no such name")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def close(self) -> None:
        """Nothing to let go of."""
