"""SpamAssassin's offline rules on the mails that this program builds."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from support.builders import event_record, job
from support.sample_mails import SAMPLES, Sample, channel, sent

from notifier.channels import Attachment, Content, Message
from notifier.model import Addressed

HARMLESS = {"NO_RECEIVED", "NO_RELAYS", "HTML_MESSAGE", "LOTS_OF_MONEY"}
"""It came by no relay, it has HTML, and a receipt has amounts: none of it counts for anything."""
pytestmark = pytest.mark.slow


def judged(folder: Path, mails: dict[str, str]) -> dict[str, tuple[float, set[str]]]:
    """What SpamAssassin gives each mail, and by which rules; nothing is looked up anywhere."""
    for number, raw in enumerate(mails.values()):
        (folder / f"{number}.eml").write_bytes(raw.encode())
    files = [str(folder / f"{number}.eml") for number in range(len(mails))]
    done = subprocess.run(  # noqa: S603 - the system's, on our own files
        ["spamassassin", "--local", "--prefspath=/dev/null", *files],  # noqa: S607
        env=os.environ | {"HOME": str(folder), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=True,
    )
    answers = re.findall(
        r"^X-Spam-Status: \w+, score=(\S+) required=\S+\s+tests=([\w,\s]*?)\s*autolearn",
        done.stdout.decode(),
        re.MULTILINE,
    )
    assert len(answers) == len(mails), done.stdout.decode()[:2000] + done.stderr.decode()[:2000]
    told = ((float(score), set(re.split(r"[,\s]+", rules))) for score, rules in answers)
    return dict(zip(mails, told, strict=True))


def full_mail() -> str:
    """A mail with everything that one can have."""
    image = Attachment(filename="logo.png", media_type="image/png", content=bytes(2000), inline="logo")
    file = Attachment(filename="Übersicht 日本.pdf", media_type="application/pdf", content=bytes(9000))
    content = Content(
        subject="Grüße aus Zürich, 日本",
        html="<img src='cid:logo' alt='Example'>" + "<p>The minutes of our last meeting.</p>" * 120,
        attachments=(image, file),
    )
    event = event_record()
    addressed = Addressed(to=("Ada <ada@example.org>", "bob@example.org"), cc=("Zoë <zoe@müller.de>",))
    to = job(event, channel="email", destination="ada@example.org", addressed=addressed, category="news")
    message = Message(job=to, event=event, content=content, unsubscribe_url="https://example.com/u/abc")
    raw: str = channel().preview(message)["raw"]
    return raw


def test_no_rule_about_form_is_hit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the samples, and of a mail with everything: no rule about MIME or headers, no score to speak of."""
    mails = {sample.name: sent(sample, channel())["raw"] for sample in SAMPLES} | {"everything": full_mail()}
    for name, (score, rules) in judged(tmp_path, mails).items():
        with capsys.disabled():
            print(f"\nSpamAssassin: {name}: {score}", end="")  # noqa: T201 - the score is to be seen
        assert rules <= HARMLESS, name
        assert score < 0.5, name


def test_it_would_be_noticed(tmp_path: Path) -> None:
    """The same mail without its Date, in a charset that lies, is marked for both."""
    raw = sent(Sample("", "welcome", {"email": "a@example.org"}), channel())["raw"]
    broken = re.sub(r"(?m)^Date: .*\r\n", "", raw)
    broken = broken.replace("Subject: Welcome!", "Subject: FREE $$$ MONEY!!!!")
    (_, rules), *_ = judged(tmp_path, {"broken": broken}).values()
    assert rules - HARMLESS
    assert "MISSING_DATE" in rules
