"""How the benchmarks' rows take turns, and what becomes of a part that fails."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from benchmarks.parts import Measure, Opened, Part, Plan, run
from benchmarks.results import Column, Figure, Values, value


def plan(rounds: int, tell: list[str] | None = None) -> Plan:
    """A plan for so many rounds."""
    told = [] if tell is None else tell
    return Plan(rounds=rounds, quick=True, cpus={0}, other_cpus={1}, folder=None, tell=told.append)


def part(rows: Mapping[str, Measure], rounds: int | None = None) -> Part:
    """A part with these rows, that says one thing below its table."""

    @asynccontextmanager
    async def opened(_plan: Plan) -> AsyncIterator[Opened]:
        yield Opened(rows, ["a note"])

    return Part(
        name="part",
        title="A part",
        columns={"rate": Column("a second")},
        open=opened,
        figures=(Figure(name="rate", of=value("one", "rate"), at_least=2),),
        rounds=rounds,
    )


def counting(name: str, order: list[str], fails_at: int | None = None) -> Measure:
    """Notes its turns, and measures which of its turns it is."""

    async def measure() -> Values:
        order.append(name)
        turn = order.count(name)
        if turn == fails_at:
            raise RuntimeError("the sink is gone")
        return {"rate": float(turn)}

    return measure


async def test_rows_take_turns_within_a_round() -> None:
    """Each round measures every row once, so that a slow minute hits all of them."""
    order: list[str] = []
    told = await run(part({name: counting(name, order) for name in ("one", "two")}), plan(2))
    assert order == ["one", "two", "one", "two"]
    assert told.rounds == [{name: {"rate": rate} for name in ("one", "two")} for rate in (1.0, 2.0)]
    assert told.notes == ["a note"]


async def test_a_part_may_take_fewer_rounds() -> None:
    """One that takes minutes has its own limit; the limit is no reason to take more than were asked for."""
    assert len((await run(part({"one": counting("one", [])}, rounds=3), plan(5))).rounds) == 3
    assert len((await run(part({"one": counting("one", [])}, rounds=3), plan(1))).rounds) == 1


async def test_a_part_that_fails_keeps_its_rounds_and_says_why() -> None:
    """What was measured before stands, with the figures made of it; the others go on."""
    said: list[str] = []
    told = await run(part({"one": counting("one", [], fails_at=3)}), plan(5, said))
    assert (len(told.rounds), told.failed) == (2, "RuntimeError: the sink is gone")
    assert told.figures[0].spread.median == 1.5
    assert any("the sink is gone" in line for line in said)


async def test_a_part_that_never_gets_going_has_no_figures() -> None:
    """Nothing is made up of nothing."""
    told = await run(part({"one": counting("one", [], fails_at=1)}), plan(5))
    assert (told.rounds, told.figures) == ([], [])
