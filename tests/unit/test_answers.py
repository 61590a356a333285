"""What the API tells of what the store holds."""

from support.builders import NOW

from notifier.model import Attempt, Outcome
from notifier.web.answers import attempt_answer


def test_an_attempt_tells_what_it_went_by() -> None:
    """Of several mail relays an operator must know which one took a mail, or refused it."""
    made = Attempt(started_at=NOW, duration_ms=1.0, outcome=Outcome.DELIVERED, via="mx.example.com:587")
    assert attempt_answer(1, made).via == "mx.example.com:587"
