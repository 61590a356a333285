"""What a relay's reply is about: one table of rules, which the configuration can put its own before.

Pure: a reply goes in, a meaning comes out. What is done about it, sessions and pools decide.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from notifier.config import ReplyRule

_PERMANENT = 5  # the first digit of such a reply code, RFC 5321 §4.2.1

# RFC 3463 §2, wherever it stands: a relay may repeat another's words. Four numbers with dots are no status.
_ENHANCED = re.compile(r"(?<![\d.])[245](\.[0-7]\.\d{1,3})(?!\.?\d)")
_LINE_END = re.compile(r"\s*\n\s*(?:[245]\.[0-7]\.\d{1,3}\s+)?")


class Phase(StrEnum):
    """Where in a session a reply came, as the configuration names it."""

    CONNECT = "connect"
    """The greeting, EHLO, STARTTLS."""
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"

    @property
    def told(self) -> str:
        """The phase as messages name it, by the command that was given."""
        return _TOLD[self]

    @property
    def of_mail(self) -> bool:
        """Whether the relay knew by then whom the mail was for: the fault may be that mail's alone."""
        return self in {Phase.RCPT, Phase.DATA, Phase.DOT}


_TOLD = {
    Phase.CONNECT: "the connection",
    Phase.AUTH: "the login",
    Phase.MAIL: "MAIL FROM",
    Phase.RCPT: "RCPT TO",
    Phase.DATA: "DATA",
    Phase.DOT: "the message",
}


class About(StrEnum):
    """Whose matter a reply is."""

    RECIPIENT = "recipient"
    MESSAGE = "message"
    PROVIDER = "provider"
    """The account, the sender's address, the sender's standing, the relay itself: all mails have it."""
    THROTTLE = "throttle"
    """Too much at once: the same mail is welcome later."""
    NETWORK = "network"
    """The connection ends, for reasons that have nothing to do with any mail."""


class Lesson(StrEnum):
    """What a throttle is about, so that it can be learned from."""

    MAILS = "mails on a connection"
    CONNECTIONS = "connections at once"
    RATE = "mails a second"


class Reply(NamedTuple):
    """What a server answered: its code, and the first KiB of its text; by which relay (`host:port`)."""

    code: int
    text: str
    via: str | None = None

    @property
    def first_line(self) -> str:
        """The text as far as a message of one line repeats it."""
        return self.text.partition("\n")[0]


class Meaning(NamedTuple):
    """What a reply means."""

    about: About
    word: str
    """The code that failures are grouped by."""
    permanent: bool
    """Whether the same would be said to the same mail at any time."""
    bounce: bool = False
    """Whether a recipient is refused as one that does not exist (any more)."""
    lesson: Lesson | None = None


class Rule(NamedTuple):
    """One line of the table: it fits where everything that it names does."""

    about: About
    word: str
    code: re.Pattern[str] | None = None
    enhanced: re.Pattern[str] | None = None
    """Of the enhanced status; its class counts as the reply code's first digit says."""
    text: re.Pattern[str] | None = None
    phases: frozenset[Phase] = frozenset(Phase)
    permanent: bool | None = None
    """None: as the reply code says."""
    bounce: bool = False
    lesson: Lesson | None = None

    def fits(self, phase: Phase, code: str, enhanced: str, text: str) -> bool:
        """Whether it is about this reply."""
        return (
            phase in self.phases
            and (self.code is None or bool(self.code.fullmatch(code)))
            and (self.enhanced is None or bool(self.enhanced.fullmatch(enhanced)))
            and (self.text is None or bool(self.text.search(text)))
        )

    def meaning(self, code: int) -> Meaning:
        """What a reply of this code means that it fits."""
        permanent = code // 100 == _PERMANENT if self.permanent is None else self.permanent
        word = self.word
        if self.about in {About.RECIPIENT, About.MESSAGE} and not permanent:
            word = word.replace("_refused", "_deferred")
        return Meaning(self.about, word, permanent, self.bounce and permanent, self.lesson)


class Rules:
    """The table: the configuration's rules before our own."""

    def __init__(self, configured: Sequence[ReplyRule] = ()) -> None:
        """Take the configured ones as the configuration's checks let them through."""
        self._rules = tuple(map(_configured, configured)) + BUILT_IN

    def meaning(self, phase: Phase, reply: Reply) -> Meaning:
        """What a refusal means: what the first rule says that fits."""
        code, text = str(reply.code), _LINE_END.sub(" ", reply.text)
        status = _ENHANCED.search(reply.text)
        enhanced = code[0] + status[1] if status else ""
        return next(rule for rule in self._rules if rule.fits(phase, code, enhanced, text)).meaning(
            reply.code
        )


# Reading rules -----------------------------------------------------------------------------------

_WORDS = {
    About.RECIPIENT: "recipient_refused",
    About.MESSAGE: "message_refused",
    About.PROVIDER: "relay_refused",
    About.THROTTLE: "relay_throttled",
    About.NETWORK: "relay_closing",
}


def _configured(rule: ReplyRule) -> Rule:
    about = About(rule.means)
    return Rule(
        about=about,
        word=_WORDS[about],
        code=_digits(rule.code),
        enhanced=_numbers(rule.enhanced),
        text=None if rule.text is None else re.compile(rule.text, re.IGNORECASE),
        phases=frozenset({Phase(rule.phase)} if rule.phase else Phase),
        permanent=rule.permanent,
        bounce=about is About.RECIPIENT,
        lesson=Lesson.RATE if about is About.THROTTLE else None,
    )


def _digits(pattern: str | None) -> re.Pattern[str] | None:
    """`45x`, with `x` for any digit."""
    return None if pattern is None else re.compile(pattern.replace("x", r"\d"))


def _numbers(*patterns: str | None) -> re.Pattern[str] | None:
    """One of several `4.7.1`, `x.7.6xx`, `5.7.x`: `x` by itself is any number, among digits any digit."""
    forms = [".".join(map(_number, pattern.split("."))) for pattern in patterns if pattern]
    return re.compile("|".join(form.replace(".", r"\.") for form in forms)) if forms else None


def _number(pattern: str) -> str:
    return r"\d+" if pattern == "x" else pattern.replace("x", r"\d")


def _rule(
    about: About,
    word: str,
    *,
    code: str | None = None,
    enhanced: Sequence[str] = (),
    text: str | None = None,
    phases: Sequence[Phase] = tuple(Phase),
    permanent: bool | None = None,
    bounce: bool = False,
    lesson: Lesson | None = None,
) -> Rule:
    return Rule(
        about=about,
        word=word,
        code=_digits(code),
        enhanced=_numbers(*enhanced),
        text=None if text is None else re.compile(text, re.IGNORECASE | re.VERBOSE),
        phases=frozenset(phases),
        permanent=permanent,
        bounce=bounce,
        lesson=lesson,
    )


# The table ---------------------------------------------------------------------------------------

_OF_MAIL = tuple(phase for phase in Phase if phase.of_mail)
_TRANSACTION = (Phase.MAIL, *_OF_MAIL)
_CONTENT = (Phase.DATA, Phase.DOT)
_BLOCKED = r"""
    (?:block|black|deny|white)\ ?list | dnsbl | \brbl\b | spamhaus | spamcop | barracuda
    | \bblocked\ (?:using|by|for|from)\b | listed\ (?:in|at|by|on)\b | \[BL\d\d\] | reputation | banned
    | client\ host\ (?:\S+\ )?(?:rejected|blocked) | helo\ command\ rejected | reverse\ (?:dns|host\ ?name)
    | \bptr\b | \bspf\b | \bdkim\b | \bdmarc\b | unauthenticated | permanently\ deferred
"""

BUILT_IN: tuple[Rule, ...] = (
    # What looks like a throttle or a block, and is one recipient's own matter.
    _rule(  # Gmail 450 4.2.1, Exchange 432 4.3.2
        About.RECIPIENT,
        "recipient_deferred",
        text=r"receiving\ mail\ (?:too\ quickly|at\ a\ rate) | recipient\ thread\ limit",
        permanent=False,
    ),
    _rule(  # postgrey 450 4.2.0, milter-greylist and rspamd 451 4.7.1
        About.RECIPIENT, "greylisted", text=r"gr[ea]y-?\ ?list", permanent=False
    ),
    _rule(  # Gmail 452 4.2.2 and 552 5.2.2, Exchange, Dovecot: full today is not gone
        About.RECIPIENT, "mailbox_full", enhanced=("x.2.2",)
    ),
    _rule(
        About.RECIPIENT,
        "mailbox_full",
        phases=_OF_MAIL,
        text=r"""
        mailbox\ (?:is\ )?(?:full|over\ ?quota)
        | (?:user|account|mailbox|recipient)\b.{0,60}\b(?:over\ ?quota|out\ of\ storage)
        """,
    ),
    _rule(  # Exchange: a group or mailbox that takes mail of its own people only
        About.RECIPIENT, "recipient_closed", enhanced=("x.7.12x", "x.7.13x")
    ),
    _rule(About.RECIPIENT, "recipient_closed", text=r"RESOLVER\.RST\."),
    # The message's size.
    _rule(About.MESSAGE, "message_too_large", enhanced=("x.3.4", "x.2.3"), phases=_TRANSACTION),
    _rule(
        About.MESSAGE,
        "message_too_large",
        phases=_TRANSACTION,
        text=r"""
        (?:message|mail|size)\b.{0,30}\b(?:too\ (?:large|long|big)|exceeds\b.{0,30}\b(?:size|limit|maximum))
        """,
    ),
    # Throttles, by what they are about.
    _rule(  # Postfix 421 4.7.0, Exim 421, SES 421, Exchange 421 and 432 4.3.2, Sendmail
        About.THROTTLE,
        "relay_throttled",
        text=r"""
        too\ many\ (?:\w+\ ){0,3}(?:connections|sessions)\b | concurrent\ (?:\w+\ )?connections?\b
        | connections?\ limit | sender\ thread\ limit
        """,
        lesson=Lesson.CONNECTIONS,
    ),
    _rule(  # Yahoo 421 "Max message per connection reached"
        About.THROTTLE,
        "relay_throttled",
        text=r"""
        (?:messages?|e?-?mails?|recipients|transactions|deliveries)\b .{0,20}
        \b(?:in|on|per|for|over)\ (?:(?:this|one|a|the|single|same|each)\ )*(?:connection|session)
        """,
        lesson=Lesson.MAILS,
    ),
    _rule(  # SES 454, Gmail 550 5.4.5, Exchange 5.1.90 and 5.7.705, SendGrid 451
        About.THROTTLE,
        "relay_quota",
        text=r"""
        (?:daily|hourly|monthly)\b.{0,40}\b(?:limit|quota) | (?:sending|messaging)\ (?:quota|limits?)\b
        | (?:limit|quota)\ per\ (?:day|hour|month) | credits\ exceeded | message\ quota
        """,
    ),
    _rule(About.THROTTLE, "relay_quota", enhanced=("x.1.90", "x.7.705")),
    _rule(  # Gmail 4.2.1, 4.7.0 and 4.7.28, Exchange 4.4.2, SES 454, Yahoo 421 4.7.0 [TSS04], Postfix
        About.THROTTLE,
        "relay_throttled",
        text=r"""
        throttl | \brate\b.{0,40}(?:limit|exceed|control|unsolicited) | (?:unusual|sending|submission)\ rate\b
        | (?:exceed|over|peak)\w*\b.{0,40}\b(?:rate|limit)\b | too\ (?:fast|much\ mail|frequent)
        | slow(?:er)?\ down | temporarily\ (?:deferred|rate) | server\ (?:is\ )?busy | unexpected\ volume
        | too\ many\ (?:recipients|requests|messages|e?-?mails|login|auth|new\ tls|bad|invalid|errors)
        | temporarily\ blocked\ due\ to\ repeated
        """,
        lesson=Lesson.RATE,
    ),
    _rule(  # 4.5.3, too many recipients: with one recipient a mail, too many mails
        About.THROTTLE, "relay_throttled", enhanced=("x.7.28", "x.4.5", "x.5.3"), lesson=Lesson.RATE
    ),
    _rule(  # Exchange Online, 451 4.7.500 to 4.7.699
        About.THROTTLE, "relay_throttled", code="4xx", enhanced=("x.7.5xx", "x.7.6xx"), lesson=Lesson.RATE
    ),
    # The message's content.
    _rule(  # Gmail 550 5.7.1 and 552 5.7.0, Exchange 5.7.350, Yahoo 554 [PH01], SpamAssassin, ClamAV
        About.MESSAGE,
        "message_refused",
        phases=_CONTENT,
        text=r"""
        (?:message|mail|content)\b.{0,60}\b(?:spam|unsolicited|suspicious)\b
        | (?:classified|identified|detected|rejected|flagged)\ as\ (?:spam|junk)
        | spam\ (?:message|content|score) | security\ issue | virus | malware | phish | attachment | header
        | \[PH\d\d\] | not\ accepted\ for\ policy | content\ (?:is\ )?(?:rejected|blocked|refused)
        """,
    ),
    _rule(About.MESSAGE, "message_refused", enhanced=("x.6.x",)),
    # The provider: the sender, the account and its standing, the relay's own state.
    _rule(About.PROVIDER, "relay_auth", code="53x"),
    _rule(About.PROVIDER, "relay_auth", enhanced=("x.7.3", "x.7.8", "x.7.57")),
    _rule(  # SES 554, SendGrid 550, Exchange 5.7.60 and 5.2.252, Postfix 553 5.7.1 and 450 4.1.8
        About.PROVIDER,
        "sender_refused",
        text=r"""
        not\ (?:authori[sz]ed|allowed|permitted)\ to\ (?:send|perform) | send\ ?as ?\ ?denied | \bsend\ as\b
        | sender\ (?:address\ )?(?:is\ )?(?:rejected|refused|denied|invalid|unknown|not\b|verify)
        | (?:address|domain|identit\w+|sender)\b.{0,40}\bnot\ (?:been\ )?verified | verified\ sender
        | from\ address\b | not\ owned\ by
        """,
    ),
    _rule(About.PROVIDER, "sender_refused", enhanced=("x.1.7", "x.1.8", "x.2.252", "x.7.60")),
    _rule(  # Postfix 554 5.7.1, Exim 550, Exchange 5.7.54 and 5.7.64
        About.PROVIDER,
        "relay_refused",
        text=r"""
        relay(?:ing)?\b.{0,20}\b(?:denied|not\ permitted|not\ allowed|prohibited) | unable\ to\ relay
        | (?:authentication|login|encryption|tls)\ (?:is\ )?required | not\ (?:been\ )?authenticated
        | must\ (?:authenticate|issue\ a\ starttls)
        """,
    ),
    _rule(  # Exchange 5.7.606, Yahoo 553 5.7.1 [BL21], Gmail 5.7.26, Postfix's client checks
        About.PROVIDER, "relay_blocked", text=_BLOCKED
    ),
    _rule(  # an account; at RCPT, that may be the recipient's
        About.PROVIDER,
        "relay_blocked",
        text=r"(?:account|sending|domain)\b.{0,30}\b(?:suspended|paused|closed|disabled)",
        phases=tuple(phase for phase in Phase if phase is not Phase.RCPT),
    ),
    _rule(  # RFC 7372 and Gmail's 4.7.23 to 4.7.32; Exchange Online's 5.7.501 to 5.7.750
        About.PROVIDER, "relay_blocked", enhanced=("x.7.2x", "x.7.3x", "x.7.5xx", "x.7.6xx", "x.7.7xx")
    ),
    _rule(About.PROVIDER, "relay_full", enhanced=("x.3.1",)),
    _rule(
        About.PROVIDER,
        "relay_full",
        code="45x",
        text=r"""
        insufficient\ (?:system\ )?(?:storage|disk|space|resources) | space\ shortage | disk\ (?:is\ )?full
        """,
    ),
    # The connection.
    _rule(About.NETWORK, "relay_closing", code="421", enhanced=("x.3.x", "x.4.x")),
    _rule(About.NETWORK, "relay_closing", code="421", text=r"time(?:d?[\ -]?)out | idle | shutting\ down"),
    _rule(  # Gmail's, for a sender in bad standing
        About.THROTTLE, "relay_throttled", code="421", enhanced=("x.7.x",), lesson=Lesson.RATE
    ),
    _rule(About.NETWORK, "relay_closing", code="421", lesson=Lesson.MAILS),
    _rule(About.NETWORK, "relay_closing", code="4xx", enhanced=("x.4.1", "x.4.2")),
    _rule(About.PROVIDER, "relay_refused", enhanced=("x.3.x",)),
    # The recipient.
    _rule(  # Postfix, Exim, Gmail, Exchange (5.1.10), a null MX (RFC 7505)
        About.RECIPIENT,
        "recipient_refused",
        enhanced=("x.1.x", "x.2.1", "x.4.4", "x.4.310"),
        phases=_OF_MAIL,
        bounce=True,
    ),
    _rule(  # Yahoo 554 "This user doesn't have a yahoo.com account", Exim, Exchange 5.4.1
        About.RECIPIENT,
        "recipient_refused",
        phases=_OF_MAIL,
        text=r"""
        (?:user|mailbox|recipient|account|(?<!ip\ )address)\b.{0,60}\b(?:unknown|not\ found|not\ exist
            |does(?:n't|\ not)\ have|invalid|inactive|disabled|no\ longer|unavailable)
        | (?:no\ such|unknown|invalid)\ (?:user|mailbox|recipient|address)
        | unrouteable | recipient\ address\ rejected | domain\ not\ found
        """,
        bounce=True,
    ),
    _rule(  # "come again", where it is no throttle
        About.RECIPIENT, "greylisted", code="45x", enhanced=("x.7.1",), phases=_OF_MAIL
    ),
    _rule(  # a policy that names no one; Exim's "Administrative prohibition"
        About.PROVIDER, "relay_refused", enhanced=("x.7.x",), phases=(Phase.RCPT,)
    ),
    _rule(About.PROVIDER, "relay_refused", text=r"prohibit | policy | access\ denied", phases=(Phase.RCPT,)),
    # Whatever else is said, by where it is said.
    _rule(About.PROVIDER, "relay_auth", phases=(Phase.AUTH,)),
    _rule(About.PROVIDER, "relay_refused", phases=(Phase.CONNECT, Phase.MAIL)),
    _rule(About.RECIPIENT, "recipient_refused", code="554", phases=(Phase.RCPT,)),
    _rule(  # RFC 5321 §4.2.3: the mailbox is unavailable
        About.RECIPIENT, "recipient_refused", phases=(Phase.RCPT,), bounce=True
    ),
    _rule(About.MESSAGE, "message_refused"),
)
"""What relays say in the real world. The first line that fits counts, and the last one fits everything.

Sources: RFC 3463, 5321 §4.2, 7372, 7505; the published lists of Gmail, Exchange Online, Yahoo, Amazon SES
and SendGrid; what Postfix and Exim say as they come.
"""
