"""What `config.toml` may say: a frozen struct a table, with the defaults."""

from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from notifier.config.units import Duration, Size
from notifier.model import Category


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file: what it doesn't know, it refuses."""


class Server(Section, frozen=True, kw_only=True):
    """`[server]`: where the API listens."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    max_body: Size = Size(1024**2)
    public_url: str | None = None
    """Where others reach this server, `https://…`: what unsubscribe links begin with."""


class Auth(Section, frozen=True, kw_only=True):
    """`[auth]`: the keys that callers present as `Authorization: Bearer KEY`."""

    ingest_keys: tuple[str, ...] = ()
    admin_keys: tuple[str, ...] = ()

    @property
    def configured(self) -> bool:
        """Whether any key is asked for at all."""
        return bool(self.ingest_keys or self.admin_keys)


class StoreSection(Section, frozen=True, kw_only=True):
    """`[store]`: where everything is kept. A relative SQLite path counts from the configuration file."""

    url: str = "sqlite:///notifier.db"
    secret_key: str = ""
    """Seals the secrets that the store keeps; `NOTIFIER_SECRET_KEY` of the environment where it is unset.

    One or more keys of 32 bytes in base64, separated by commas: the first seals, all of them open.
    """


class Workers(Section, frozen=True, kw_only=True):
    """`[workers]`: how many deliveries run at once, and how long a claim and a drain last."""

    concurrency: Annotated[int, Meta(ge=1, le=10_000)] = 64
    claim_timeout: Duration = Duration(60)
    drain_timeout: Duration = Duration(30)


class Retry(Section, frozen=True, kw_only=True):
    """`[retry]`: delays after the 1st, 2nd … failed attempt; past the last the job is FAILED."""

    schedule: tuple[Duration, ...] = tuple(map(Duration, (5, 300, 1800, 7200, 18000, 36000, 36000)))
    jitter: Annotated[float, Meta(ge=0, le=1)] = 0.2
    retry_after_cap: Duration = Duration(3600)
    """The longest wait that a receiver's `Retry-After` can impose."""


class Retention(Section, frozen=True, kw_only=True):
    """`[retention]`: how long finished jobs are kept (CANCELLED as long as FAILED)."""

    completed: Duration = Duration(7 * 86400)
    failed: Duration = Duration(30 * 86400)


class Templates(Section, frozen=True, kw_only=True):
    """`[templates]`: the folder of notification templates."""

    path: str = "templates"


class WebhookSection(Section, frozen=True, kw_only=True):
    """`[channels.webhook]`."""

    timeout: Duration = Duration(15)
    allow_networks: tuple[str, ...] = ()
    """Networks that may be connected to though they are not public, on every port."""
    allow_ports: tuple[Annotated[int, Meta(ge=1, le=65535)], ...] = ()
    """Ports that public addresses may be connected to at, beside 80 and 443."""
    proxy: str | None = None
    """`http://[user:password@]host:port` of the egress proxy that all deliveries go through."""
    proxy_resolves: bool = False
    """Whether host names are left to the proxy, to look up and to guard."""
    secret: str | tuple[str, ...] | None = None
    """Signs what has no route with a secret of its own; the store makes and keeps one when this is unset."""
    rotation_overlap: Duration = Duration(86400)
    """How long an endpoint's old secret goes on signing beside the new one."""
    disable_after: Duration = Duration(5 * 86400)
    """How long an endpoint fails everything until it is disabled."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """What `secret` holds, none, one or several."""
        return several(self.secret)


class Relay(Section, frozen=True, kw_only=True):
    """`[[channels.email.relays]]`: one SMTP server."""

    host: str = "localhost"
    port: Annotated[int, Meta(ge=1, le=65535)] = 25
    tls: Literal["none", "starttls", "implicit"] = "starttls"
    username: str | None = None
    password: str | None = None
    auth: Literal["auto", "plain", "login", "cram-md5", "xoauth2"] = "auto"
    token_file: str | None = None
    """Holds the access token of `auth = "xoauth2"`; read anew for every login."""
    connect_timeout: Duration = Duration(60)
    """For the connection, the greeting, EHLO, STARTTLS and the login together."""
    timeout: Duration = Duration(30)
    """For the answer to each command; RFC 5321 §4.5.3.2 would have five minutes."""
    data_timeout: Duration = Duration(180)
    """For each block of a mail to be taken."""
    dot_timeout: Duration = Duration(600)
    """For the answer to the final dot: given up too early, a mail that arrived is sent once more."""
    connections: Annotated[int, Meta(ge=1, le=1000)] = 10
    messages: Annotated[int, Meta(ge=1)] = 100
    """Mails that one connection carries at most."""
    idle: Duration = Duration(30)
    """How long a connection is kept that nobody uses."""
    age: Duration = Duration(600)
    """How long a connection is kept at all."""


class ReplyRule(Section, frozen=True, kw_only=True):
    """`[[channels.email.rules]]`: what a relay's reply means. The first that fits counts, before our own."""

    means: Literal["recipient", "message", "provider", "throttle", "network"]
    code: Annotated[str, Meta(pattern=r"^[2-5x][0-9x][0-9x]\Z")] | None = None
    """A reply code, `x` for any digit."""
    enhanced: Annotated[str, Meta(pattern=r"^[245x]\.[0-9x]{1,3}\.[0-9x]{1,3}\Z")] | None = None
    """An enhanced status code (RFC 3463), `x` for any number."""
    text: str | None = None
    """A regular expression that is found in the reply, whatever its case."""
    phase: Literal["connect", "auth", "mail", "rcpt", "data", "dot"] | None = None
    permanent: bool | None = None
    """Whether it is for good; by itself, as the code says."""


class DkimSection(Section, frozen=True, kw_only=True):
    """`[channels.email.dkim]`: how mails are signed (RFC 6376)."""

    selector: str
    key_file: str
    domain: str | None = None
    """The sender's domain where it is unset."""


class EmailSection(Section, frozen=True, kw_only=True, rename={"from_": "from"}):
    """`[channels.email]`."""

    from_: str = "Notifier <no-reply@localhost>"
    relays: tuple[Relay, ...] = ()
    rules: tuple[ReplyRule, ...] = ()
    dkim: DkimSection | None = None
    inline_css: bool = True
    """Whether style sheets in the HTML become `style` attributes, which all mail clients heed."""
    max_attachment: Size = Size(5 * 1024**2)
    max_message: Size = Size(20 * 1024**2)
    suppress_after: Annotated[int, Meta(ge=0)] = 1
    """How many hard bounces suppress an address; 0: none do."""


class Channels(Section, frozen=True, kw_only=True):
    """`[channels]`: the two built in, and a free table for each that a plugin registers."""

    webhook: WebhookSection = field(default_factory=WebhookSection)
    email: EmailSection = field(default_factory=EmailSection)
    others: dict[str, dict[str, Any]] = field(default_factory=dict)


class Route(Section, frozen=True, kw_only=True):
    """`[[routes]]`: which events go to whom, how. `to`, `url`, `locale` are Jinja2; `when` an expression."""

    event: str
    channel: Annotated[str, Meta(min_length=1)]
    name: str = ""
    """Unique; made from event and channel where it is left out."""
    when: str | None = None
    to: str | tuple[str, ...] | None = None
    cc: str | tuple[str, ...] = ()
    bcc: str | tuple[str, ...] = ()
    url: str | None = None
    template: str | None = None
    locale: str | None = None
    category: Category | None = None
    """What kind of mail it is to its recipients, who can unsubscribe from it; None: they can't."""
    on_unknown: Literal["retry", "fail"] = "retry"
    """What becomes of a job of which it can't be known whether it arrived."""
    secret: str | tuple[str, ...] | None = None
    """Signs a webhook; several do while receivers change from one to the next."""
    priority: Literal["high", "normal", "low"] = "normal"
    retry: tuple[Duration, ...] | None = None
    """This route's own schedule, in place of `retry.schedule`."""

    @property
    def destinations(self) -> dict[str, str]:
        """The templates of where it goes, each by its key: `url`, `to` or `to[1]`, `cc[0]`."""
        found: dict[str, str] = {}
        for key, given in (("url", self.url), ("to", self.to), ("cc", self.cc), ("bcc", self.bcc)):
            for number, template in enumerate(several(given)):
                found[key if isinstance(given, str) else f"{key}[{number}]"] = template
        return found

    @property
    def secrets(self) -> tuple[str, ...]:
        """What `secret` holds, none, one or several."""
        return several(self.secret)


def several(given: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """What is given, none, one or several, as a tuple."""
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else given


class Lanes(Section, frozen=True, kw_only=True):
    """`[[lanes]]`: what the lanes of a name are held to. The first entry that names a lane counts."""

    lane: Annotated[str, Meta(min_length=1)]
    """A lane's name (`webhook:erp.example.com:443`, `email:example.com`), or its start and a `*`."""
    rate_limit: Annotated[float, Meta(gt=0, le=1_000_000)] | None = None
    """Attempts a second."""
    burst: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """Attempts that may go at once after a quiet while; unset: those of one second."""
    max_in_flight: Annotated[int, Meta(ge=1, le=10_000)] | None = None

    def names(self, lane: str) -> bool:
        """Whether this entry is about a lane."""
        return lane.startswith(self.lane[:-1]) if self.lane.endswith("*") else lane == self.lane


class BreakerSection(Section, frozen=True, kw_only=True):
    """`[breaker]`: when a lane whose receiver is in trouble is let alone for a while."""

    failures: Annotated[int, Meta(ge=1)] = 10
    """It opens after this many failures in a row,"""
    window: Duration = Duration(60)
    window_attempts: Annotated[int, Meta(ge=1)] = 50
    """or once so many attempts ended within the window,"""
    window_failed: Annotated[float, Meta(gt=0, le=1)] = 0.8
    """this part of them failed."""
    open_for: tuple[Duration, ...] = tuple(map(Duration, (30, 60, 120, 300, 600)))
    """How long it stays open the 1st, 2nd … time in a row; then one attempt is let through. Empty: never."""


class Config(Section, frozen=True, kw_only=True):
    """The whole file."""

    server: Server = field(default_factory=Server)
    auth: Auth = field(default_factory=Auth)
    store: StoreSection = field(default_factory=StoreSection)
    workers: Workers = field(default_factory=Workers)
    retry: Retry = field(default_factory=Retry)
    retention: Retention = field(default_factory=Retention)
    templates: Templates = field(default_factory=Templates)
    channels: Channels = field(default_factory=Channels)
    breaker: BreakerSection = field(default_factory=BreakerSection)
    lanes: tuple[Lanes, ...] = ()
    routes: tuple[Route, ...] = ()
    plugins: tuple[str, ...] = ()
    directory: Path = field(default_factory=Path.cwd)
    """Where the file stands; relative paths count from here."""

    @property
    def templates_path(self) -> Path:
        """The templates folder, absolute."""
        return self.directory / self.templates.path
