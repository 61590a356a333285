"""The table of replies: what real servers say, and whose matter it is."""

from typing import Any

import pytest

from notifier.channels.replies import About, Lesson, Meaning, Phase, Reply, Rules
from notifier.config import ReplyRule

RULES = Rules()
CONNECT, AUTH, MAIL, RCPT, DATA, DOT = Phase
RECIPIENT, MESSAGE, PROVIDER, THROTTLE, NETWORK = About

REPLIES: list[tuple[Phase, str, About, str]] = [
    # Gmail
    (
        RCPT,
        "550 5.1.1 The email account that you tried to reach does not exist.",
        RECIPIENT,
        "recipient_refused",
    ),
    (
        RCPT,
        "550 5.2.1 The email account that you tried to reach is disabled.",
        RECIPIENT,
        "recipient_refused",
    ),
    (RCPT, "452 4.2.2 The email account that you tried to reach is over quota.", RECIPIENT, "mailbox_full"),
    (DOT, "552 5.2.2 The email account that you tried to reach is over quota.", RECIPIENT, "mailbox_full"),
    (
        RCPT,
        "450 4.2.1 The user you are trying to contact is receiving mail at a rate that prevents more",
        RECIPIENT,
        "recipient_deferred",
    ),
    (RCPT, "450 4.2.1 Peak SMTP relay limit exceeded for customer.", THROTTLE, "relay_throttled"),
    (MAIL, "550 5.4.5 Daily user sending limit exceeded.", THROTTLE, "relay_quota"),
    (
        DOT,
        "421 4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your IP address.",
        THROTTLE,
        "relay_throttled",
    ),
    (CONNECT, "421 4.7.0 Try again later, closing connection.", THROTTLE, "relay_throttled"),
    (RCPT, "421 4.4.5 Server busy, try again later.", THROTTLE, "relay_throttled"),
    (RCPT, "421 4.7.0 IP not in whitelist for RCPT domain, closing connection.", PROVIDER, "relay_blocked"),
    (RCPT, "421 4.7.0 TLS required for RCPT domain, closing connection.", PROVIDER, "relay_refused"),
    (RCPT, "421 4.3.0 Temporary System Problem. Try again later.", NETWORK, "relay_closing"),
    (RCPT, "452 4.5.3 Your message has too many recipients.", THROTTLE, "relay_throttled"),
    (MAIL, "530 5.7.0 Must issue a STARTTLS command first.", PROVIDER, "relay_auth"),
    (AUTH, "535 5.7.8 Username and Password not accepted.", PROVIDER, "relay_auth"),
    (AUTH, "454 4.7.0 Too many login attempts, please try again later.", THROTTLE, "relay_throttled"),
    (MAIL, "552 5.3.4 Your message exceeded Google's message size limits.", MESSAGE, "message_too_large"),
    (
        DOT,
        "550 5.7.1 Our system has detected that this message is likely unsolicited mail.",
        MESSAGE,
        "message_refused",
    ),
    (
        DOT,
        "552 5.7.0 This message was blocked because its content presents a potential security issue.",
        MESSAGE,
        "message_refused",
    ),
    (
        DOT,
        "550 5.7.26 This mail has been blocked because the sender is unauthenticated.",
        PROVIDER,
        "relay_blocked",
    ),
    (DOT, "550 5.7.25 The sending IP address has no PTR record.", PROVIDER, "relay_blocked"),
    (DOT, "421 4.7.32 Your email is not aligned with your DKIM domain.", PROVIDER, "relay_blocked"),
    # Outlook and Exchange
    (RCPT, "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found", RECIPIENT, "recipient_refused"),
    (
        RCPT,
        "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)",
        RECIPIENT,
        "recipient_refused",
    ),
    (DOT, "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup", RECIPIENT, "recipient_closed"),
    (RCPT, "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded", RECIPIENT, "recipient_deferred"),
    (DOT, "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", THROTTLE, "relay_throttled"),
    (
        MAIL,
        "421 4.4.2 Message submission rate for this client has exceeded the configured limit",
        THROTTLE,
        "",
    ),
    (CONNECT, "421 4.3.2 The maximum number of concurrent connections has exceeded a limit", THROTTLE, ""),
    (RCPT, "451 4.7.500 Server busy. Please try again later from [192.0.2.1].", THROTTLE, ""),
    (DOT, "550 5.7.705 Access denied, tenant has exceeded threshold", THROTTLE, "relay_quota"),
    (
        RCPT,
        "550 5.7.1 Service unavailable, Client host [192.0.2.1] blocked using Spamhaus.",
        PROVIDER,
        "relay_blocked",
    ),
    (RCPT, "550 5.7.606 Access denied, banned sending IP [192.0.2.1].", PROVIDER, "relay_blocked"),
    (
        DOT,
        "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
        PROVIDER,
        "sender_refused",
    ),
    (DOT, "554 5.2.252 SendAsDenied; a@example.com not allowed to send as b@example.com", PROVIDER, ""),
    (MAIL, "530 5.7.57 Client not authenticated to send mail.", PROVIDER, "relay_auth"),
    (RCPT, "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", PROVIDER, "relay_refused"),
    (DOT, "550 5.7.350 Remote server returned message detected as spam", MESSAGE, "message_refused"),
    (CONNECT, "421 4.4.1 Connection timed out", NETWORK, "relay_closing"),
    # Yahoo
    (
        MAIL,
        "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume - 4.16.55.1",
        THROTTLE,
        "relay_throttled",
    ),
    (
        MAIL,
        "421 4.7.1 [TS03] All messages from 192.0.2.1 will be permanently deferred",
        PROVIDER,
        "relay_blocked",
    ),
    (CONNECT, "553 5.7.1 [BL21] Connections will not be accepted from 192.0.2.1", PROVIDER, "relay_blocked"),
    (MAIL, "421 Max message per connection reached, closing transmission channel", THROTTLE, ""),
    (DOT, "554 5.7.9 Message not accepted for policy reasons.", MESSAGE, "message_refused"),
    (
        DOT,
        "554 Message not allowed - [PH01] Email not accepted for policy reasons.",
        MESSAGE,
        "message_refused",
    ),
    (
        DOT,
        "554 delivery error: dd This user doesn't have a yahoo.com account (ada@yahoo.com) [0]",
        RECIPIENT,
        "recipient_refused",
    ),
    # Postfix
    (
        RCPT,
        "550 5.1.1 <ada@example.org>: Recipient address rejected: User unknown in virtual mailbox table",
        RECIPIENT,
        "recipient_refused",
    ),
    (RCPT, "450 4.2.0 <ada@example.org>: Recipient address rejected: Greylisted", RECIPIENT, "greylisted"),
    (RCPT, "554 5.7.1 <ada@example.org>: Relay access denied", PROVIDER, "relay_refused"),
    (
        RCPT,
        "553 5.7.1 <a@example.com>: Sender address rejected: not owned by user b",
        PROVIDER,
        "sender_refused",
    ),
    (
        RCPT,
        "450 4.1.8 <a@example.com>: Sender address rejected: Domain not found",
        PROVIDER,
        "sender_refused",
    ),
    (
        RCPT,
        "450 4.7.25 Client host rejected: cannot find your reverse hostname, [192.0.2.1]",
        PROVIDER,
        "relay_blocked",
    ),
    (
        RCPT,
        "450 4.1.2 <a@nowhere.example>: Recipient address rejected: Domain not found",
        RECIPIENT,
        "recipient_deferred",
    ),
    (CONNECT, "421 4.7.0 mail.example Error: too many connections from 192.0.2.1", THROTTLE, ""),
    (MAIL, "450 4.7.1 Error: too much mail from 192.0.2.1", THROTTLE, "relay_throttled"),
    (RCPT, "450 4.7.1 Error: too many recipients from 192.0.2.1", THROTTLE, "relay_throttled"),
    (RCPT, "451 4.3.0 <ada@example.org>: Temporary lookup failure", PROVIDER, "relay_refused"),
    (MAIL, "452 4.3.1 Insufficient system storage", PROVIDER, "relay_full"),
    (MAIL, "552 5.3.4 Message size exceeds fixed limit", MESSAGE, "message_too_large"),
    (DOT, "550 5.7.1 Content Rejected", MESSAGE, "message_refused"),
    (
        CONNECT,
        "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
        PROVIDER,
        "",
    ),
    (
        RCPT,
        "556 5.1.10 <a@example.org>: Recipient address rejected: Domain does not accept mail",
        RECIPIENT,
        "",
    ),
    # Exim
    (RCPT, "550 Unrouteable address", RECIPIENT, "recipient_refused"),
    (RCPT, "550 relay not permitted", PROVIDER, "relay_refused"),
    (RCPT, "550 Administrative prohibition", PROVIDER, "relay_refused"),
    (RCPT, "451 Temporary local problem - please try later", RECIPIENT, "recipient_deferred"),
    (CONNECT, "421 mail.example: Too many concurrent SMTP connections; please try again later", THROTTLE, ""),
    (MAIL, "452 space shortage, please try later", PROVIDER, "relay_full"),
    (DOT, "550 This message contains a virus (Eicar-Test-Signature).", MESSAGE, "message_refused"),
    (DOT, "552 Message size exceeds maximum permitted", MESSAGE, "message_too_large"),
    # Amazon SES
    (DATA, "454 Throttling failure: Maximum sending rate exceeded.", THROTTLE, "relay_throttled"),
    (DATA, "454 Throttling failure: Daily message quota exceeded.", THROTTLE, "relay_quota"),
    (
        DOT,
        "554 Message rejected: Email address is not verified. The following identities failed the check",
        PROVIDER,
        "sender_refused",
    ),
    (
        DOT,
        "554 Access denied: User `arn:aws:iam::1:user/x' is not authorized to perform `ses:SendRawEmail'",
        PROVIDER,
        "sender_refused",
    ),
    (DOT, "554 Message rejected: Sending paused for this account.", PROVIDER, "relay_blocked"),
    (DOT, "554 Transaction failed: Duplicate header 'Date'.", MESSAGE, "message_refused"),
    (CONNECT, "421 Too many concurrent SMTP connections", THROTTLE, "relay_throttled"),
    (AUTH, "535 Authentication Credentials Invalid", PROVIDER, "relay_auth"),
    # SendGrid
    (AUTH, "451 Authentication failed: Maximum credits exceeded", THROTTLE, "relay_quota"),
    (DOT, "550 The from address does not match a verified Sender Identity.", PROVIDER, "sender_refused"),
    (
        CONNECT,
        "450 too frequent connects from 192.0.2.1, please try again later.",
        THROTTLE,
        "relay_throttled",
    ),
    (MAIL, "550 Unauthenticated senders not allowed", PROVIDER, "relay_blocked"),
    # What says nothing but its code
    (RCPT, "550 no", RECIPIENT, "recipient_refused"),
    (RCPT, "450 no", RECIPIENT, "recipient_deferred"),
    (RCPT, "550 5.7.1 no", PROVIDER, "relay_refused"),
    (RCPT, "450 4.7.1 later", RECIPIENT, "greylisted"),
    (DOT, "554 5.7.1 no", MESSAGE, "message_refused"),
    (DOT, "451 no", MESSAGE, "message_deferred"),
    (DATA, "550 no", MESSAGE, "message_refused"),
    (MAIL, "550 no", PROVIDER, "relay_refused"),
    (CONNECT, "554 no", PROVIDER, "relay_refused"),
    (AUTH, "500 no", PROVIDER, "relay_auth"),
    (RCPT, "421 bye", NETWORK, "relay_closing"),
]


def reply(line: str) -> Reply:
    """A reply as a server gives it, in one line."""
    return Reply(int(line[:3]), line[4:])


def meaning(phase: Phase, line: str, *rules: ReplyRule) -> Meaning:
    """What a reply means, by these rules and the built-in ones."""
    return Rules(rules).meaning(phase, reply(line))


@pytest.mark.parametrize(("phase", "line", "about", "word"), REPLIES, ids=[line for _, line, *_ in REPLIES])
def test_what_real_servers_say_is_told_apart(phase: Phase, line: str, about: About, word: str) -> None:
    """Each reply that is known from the wild is about whom it is about, and grouped under its word."""
    found = RULES.meaning(phase, reply(line))
    assert found.about is about
    assert found.word == word or not word


@pytest.mark.parametrize(
    ("phase", "line", "bounce"),
    [
        (RCPT, "550 5.1.1 User unknown", True),
        (DOT, "550 5.1.1 User unknown", True),
        (RCPT, "550 no such user", True),
        (RCPT, "450 4.1.1 User unknown", False),
        (RCPT, "552 5.2.2 mailbox full", False),
        (RCPT, "554 transaction failed", False),
        (DOT, "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup", False),
        (RCPT, "550 5.7.1 Relay access denied", False),
    ],
)
def test_only_a_recipient_that_is_not_there_bounces(phase: Phase, line: str, bounce: bool) -> None:
    """A full or closed mailbox, a policy, or a fault of ours suppresses no address."""
    assert RULES.meaning(phase, reply(line)).bounce is bounce


@pytest.mark.parametrize(
    ("line", "lesson"),
    [
        ("421 4.7.0 Error: too many connections from 192.0.2.1", Lesson.CONNECTIONS),
        ("421 Too many concurrent SMTP connections; please try again later", Lesson.CONNECTIONS),
        ("421 Max message per connection reached, closing transmission channel", Lesson.MAILS),
        ("452 4.5.3 Too many messages in one connection", Lesson.MAILS),
        ("421 4.7.0 too many mails on this connection", Lesson.MAILS),
        ("454 Throttling failure: Maximum sending rate exceeded.", Lesson.RATE),
        ("451 4.7.1 Please slow down", Lesson.RATE),
        ("454 Throttling failure: Daily message quota exceeded.", None),
        ("550 5.4.5 Daily user sending limit exceeded.", None),
        ("421 4.4.2 Error: timeout exceeded", None),
        ("421 closing", Lesson.MAILS),
    ],
)
def test_a_throttle_says_what_is_to_be_learned(line: str, lesson: Lesson | None) -> None:
    """Connections, mails on one, mails a second: each is held back by its own measure; quotas by none."""
    assert RULES.meaning(MAIL, reply(line)).lesson is lesson


def test_words_are_found_across_the_lines_of_a_reply() -> None:
    """A sentence that a server breaks over lines, each with the status again, is read as one."""
    text = "5.7.1 This message is likely\n5.7.1 unsolicited mail."
    assert RULES.meaning(DOT, Reply(550, text)).about is MESSAGE


def test_a_status_is_found_in_what_a_relay_repeats() -> None:
    """A relay that passes on what the next one said is understood; an address is no status."""
    said = Reply(550, "host mx.example[192.0.2.1] said: 550-5.1.1 no mailbox")
    assert RULES.meaning(DOT, said).word == "recipient_refused"
    assert RULES.meaning(DOT, Reply(550, "5.1.1.7 and 4.16.55.1 and 5.1.12.4 say no")).about is MESSAGE


def test_the_class_is_the_reply_codes() -> None:
    """Where code and enhanced status contradict each other, RFC 5321 wins: 450 is to be tried again."""
    assert not RULES.meaning(RCPT, Reply(450, "5.1.1 User unknown")).permanent


def rule(**fields: Any) -> ReplyRule:
    """A configured rule."""
    return ReplyRule(**fields)


def test_configured_rules_count_before_ours() -> None:
    """The first rule that fits decides, in the order of the file."""
    ours = rule(means="provider", text="user unknown"), rule(means="message", code="550")
    assert meaning(RCPT, "550 5.1.1 User UNKNOWN", *ours)[:2] == (PROVIDER, "relay_refused")
    assert meaning(RCPT, "550 5.1.1 who?", *ours)[:2] == (MESSAGE, "message_refused")
    assert meaning(RCPT, "551 5.1.1 who?", *ours)[:2] == (RECIPIENT, "recipient_refused")


def test_a_rule_fits_where_all_that_it_names_does() -> None:
    """Code, status, words and phase are all held; `x` stands for any digit, or any number by itself."""
    narrow = rule(means="throttle", code="45x", enhanced="4.7.x", text="later", phase="rcpt")
    assert meaning(RCPT, "451 4.7.650 later", narrow).about is THROTTLE
    assert meaning(RCPT, "551 4.7.650 later", narrow).about is not THROTTLE
    assert meaning(RCPT, "451 4.3.0 later", narrow).about is not THROTTLE
    assert meaning(RCPT, "451 4.7.1 no", narrow).about is not THROTTLE
    assert meaning(DOT, "451 4.7.1 later", narrow).about is not THROTTLE
    digits = rule(means="throttle", enhanced="x.7.6xx")
    assert meaning(RCPT, "550 5.7.640 no", digits).about is THROTTLE
    assert meaning(RCPT, "550 5.7.64 no", digits).about is not THROTTLE


def test_a_rule_may_say_what_is_for_good() -> None:
    """`permanent` overrules the reply code; a recipient refused for good by a rule bounces."""
    kept = rule(means="recipient", code="550", permanent=False)
    assert meaning(RCPT, "550 5.1.1 no", kept) == Meaning(RECIPIENT, "recipient_deferred", permanent=False)
    gone = rule(means="recipient", code="450", permanent=True)
    assert meaning(RCPT, "450 no", gone) == Meaning(
        RECIPIENT, "recipient_refused", permanent=True, bounce=True
    )


def test_a_throttle_of_a_rule_slows_the_relay() -> None:
    """What an operator knows to be a throttle is learned from as one that we know."""
    assert meaning(DOT, "550 5.9.9 hold it", rule(means="throttle", text="hold it")).lesson is Lesson.RATE
