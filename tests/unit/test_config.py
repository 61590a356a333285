"""The configuration: what is read, and how what can't be used is told."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.config import (
    Config,
    Duration,
    Retry,
    Route,
    is_loopback,
    load_config,
    parse_config,
    parse_duration,
    parse_size,
)
from notifier.errors import ConfigError

SHIPPED = Path(__file__).parents[2] / "config.toml"
WEBHOOK = '[[routes]]\nevent = "order.*"\nchannel = "webhook"\nurl = "https://a.example"\n'
EMAIL = '[[routes]]\nevent = "a"\nchannel = "email"\nto = "x@example.com"\ntemplate = "t"\n'
RELAY = "[[channels.email.relays]]\n"


def parse(text: str, **environ: str) -> Config:
    """Read a configuration; the environment holds what is given here and nothing else."""
    return parse_config(text, environ)


def failure(text: str, **environ: str) -> ConfigError:
    """What reading a configuration raises."""
    with pytest.raises(ConfigError) as raised:
        parse(text, **environ)
    return raised.value


# What is read ----------------------------------------------------------------------------------------


def test_the_file_that_ships_needs_no_environment() -> None:
    """A newcomer runs it as it is: loopback, SQLite, a mail route and webhook routes."""
    config = load_config(SHIPPED, {})
    assert config.server.host == "127.0.0.1"
    assert not config.auth.configured
    assert config.store.url == "sqlite:///notifier.db"
    assert [route.name for route in config.routes] == ["user.signup by email", "crm", "erp"]
    assert config.channels.email.relays[0].tls == "none"
    assert config.templates_path == SHIPPED.parent / "templates"


def test_what_ships_is_what_an_empty_file_means() -> None:
    """The shipped values are the defaults, so that a file may leave out what it doesn't change."""
    shipped, empty = load_config(SHIPPED, {}), parse("")
    for part in ("server", "auth", "store", "workers", "retry", "retention", "templates"):
        assert getattr(shipped, part) == getattr(empty, part)


def test_every_kind_of_value_is_read() -> None:
    """Durations, sizes, lists, tables of tables, and the free tables of registered channels."""
    config = parse(
        'plugins = ["mine"]\n[server]\nmax_body = "64KiB"\n[retry]\nschedule = ["1s", "250ms"]\n'
        '[channels.email]\nfrom = "A <a@example.com>"\n' + RELAY + 'host = "mx"\ntls = "implicit"\n'
        '[channels.sms]\ntoken = "t"\nnested = { deep = [1] }\n' + WEBHOOK + 'retry = []\npriority = "high"\n'
    )
    assert config.plugins == ("mine",)
    assert config.server.max_body == 65536
    assert config.retry == Retry(schedule=(Duration(1), Duration(0.25)))
    assert config.channels.email.from_ == "A <a@example.com>"
    assert (config.channels.email.relays[0].host, config.channels.email.relays[0].tls) == ("mx", "implicit")
    assert config.channels.others == {"sms": {"token": "t", "nested": {"deep": [1]}}}
    assert config.routes[0] == Route(
        name="order.* by webhook",
        event="order.*",
        channel="webhook",
        url="https://a.example",
        retry=(),
        priority="high",
    )


def test_paths_count_from_the_file(tmp_path: Path) -> None:
    """Wherever the command is started; an absolute path is left alone."""
    (tmp_path / "c.toml").write_text('[templates]\npath = "mails"\n')
    assert load_config(tmp_path / "c.toml", {}).templates_path == tmp_path / "mails"
    (tmp_path / "c.toml").write_text('[templates]\npath = "/srv/mails"\n')
    assert load_config(tmp_path / "c.toml", {}).templates_path == Path("/srv/mails")


def test_a_configuration_does_not_change() -> None:
    """Whoever holds it may rely on it."""
    with pytest.raises(AttributeError):
        parse("").server.port = 1  # type: ignore[misc]  # that it is refused is what this shows


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("90s", 90), ("5m", 300), ("2h", 7200), ("7d", 604_800), ("1.5h", 5400), ("0s", 0)],
)
def test_durations_are_a_number_and_a_unit(text: str, seconds: float) -> None:
    """In seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "5", "s", "5 s", "-5s", "+5s", "5S", "1e3s", "5s ", "1h30m", "3651d", "9" * 400 + "d", 5, None],
)
def test_what_is_no_duration_says_what_one_looks_like(text: object) -> None:
    """Neither is a bare number: nobody would know its unit."""
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("512B", 512), ("64KiB", 65536), ("1MiB", 2**20), ("2GiB", 2**31)]
)
def test_sizes_are_a_number_and_a_unit(text: str, size: int) -> None:
    """In bytes."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "1", "1MB", "1.5MiB", "-1B", "1 MiB", "1mib", 1, None])
def test_what_is_no_size_says_what_one_looks_like(text: object) -> None:
    """A megabyte that may be 1000² or 1024² bytes is no size either."""
    with pytest.raises(ValueError, match="expected a size"):
        parse_size(text)


# The environment -------------------------------------------------------------------------------------


def test_variables_are_read_from_the_environment() -> None:
    """Anywhere in any text, with or without a default; a set but empty one is empty."""
    config = parse(
        '[auth]\ningest_keys = ["${KEY}"]\nadmin_keys = ["a-${KEY}-${OTHER:-default}"]\n'
        '[store]\nurl = "sqlite:///${EMPTY:-unused}x.db"\n' + WEBHOOK + 'secret = "${NONE:-}"\n',
        KEY="k",
        EMPTY="",
    )
    assert config.auth.ingest_keys == ("k",)
    assert config.auth.admin_keys == ("a-k-default",)
    assert config.store.url == "sqlite:///x.db"
    assert config.routes[0].secret == ""


def test_what_a_variable_holds_is_not_expanded_again() -> None:
    """A password may look like anything."""
    assert parse('[store]\nurl = "${U}"\n', U="${U}${-").store.url == "${U}${-"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[auth]\ningest_keys = ["ok", "${KEY}"]', "auth.ingest_keys[1]"),
        (WEBHOOK + 'secret = "${KEY}"', "routes[0].secret"),
        (RELAY + 'password = "${KEY}"', "channels.email.relays[0].password"),
        ("[channels.sms]\nnested = { token = '${KEY}' }", "channels.sms.nested.token"),
    ],
)
def test_an_unset_variable_names_its_key(text: str, key: str) -> None:
    """Rather than run with an empty secret."""
    error = failure(text)
    assert (error.key, error.problem) == (key, "the environment variable KEY is not set")


@pytest.mark.parametrize("text", ["${MY-KEY}", "${}", "${1}", "${KEY", "a${ KEY }"])
def test_a_variable_that_is_misspelt_is_not_taken_literally(text: str) -> None:
    """Else `${MY-KEY}` itself would be the key, for anyone to guess."""
    error = failure(f'[auth]\nadmin_keys = ["{text}"]', KEY="k")
    assert error.key == "auth.admin_keys[0]"
    assert error.problem.startswith("expected ${NAME} or ${NAME:-default}")


def test_jinja_and_lone_dollars_are_left_alone() -> None:
    """Only `${` means the environment."""
    route = parse('[[routes]]\nevent = "a"\nchannel = "sms"\nto = "$1 {{ data.to }} $"\n').routes[0]
    assert route.to == "$1 {{ data.to }} $"


# What can't be used ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        ("[sever]", "sever", "unknown key; did you mean 'server'?"),
        ("[server]\nprot = 1", "server.prot", "unknown key; did you mean 'port'?"),
        (
            RELAY + "usrname = 'x'",
            "channels.email.relays[0].usrname",
            "unknown key; did you mean 'username'?",
        ),
        ("[channels.email]\nform = 'x'", "channels.email.form", "unknown key; did you mean 'from'?"),
        ("[channels.email]\nfrom_ = 'x'", "channels.email.from_", "unknown key; did you mean 'from'?"),
        (WEBHOOK + "temlate = 'x'", "routes[0].temlate", "unknown key; did you mean 'template'?"),
        ("qqqqqqqqq = 1", "qqqqqqqqq", "unknown key"),
        ("directory = '/'", "directory", "unknown key"),
        ("[server]\nport = '80'", "server.port", "expected `int`, got `str`"),
        ("[server]\nport = 70000", "server.port", "expected `int` <= 65535"),
        ("[server]\nport = 1.5", "server.port", "expected `int`, got `float`"),
        ("server = 1", "server", "expected `object`, got `int`"),
        ("routes = 1", "routes", "expected `array`, got `int`"),
        ("[workers]\nconcurrency = 0", "workers.concurrency", "expected `int` >= 1"),
        ("[workers]\nconcurrency = true", "workers.concurrency", "expected `int`, got `bool`"),
        ("[retry]\njitter = 2", "retry.jitter", "expected `float` <= 1.0"),
        ("plugins = ['a', 1]", "plugins[1]", "expected `str`, got `int`"),
        ("channels = 1", "channels", "expected `object`, got `int`"),
        ("[channels]\nsms = 1", "channels.sms", "expected a table, got 1"),
        ("[[routes]]\nchannel = 'sms'", "routes[0].event", "is missing, and has no default"),
        ("[[routes]]\nevent = 'a'", "routes[0].channel", "is missing, and has no default"),
        (
            RELAY + "tls = 'ssl'",
            "channels.email.relays[0].tls",
            'expected one of "none", "starttls", "implicit"',
        ),
        (WEBHOOK + "priority = 'urgent'", "routes[0].priority", '"high", "normal", "low", got \'urgent\''),
        ("[workers]\nclaim_timeout = 15", "workers.claim_timeout", 'expected a duration such as "90s"'),
        ("[workers]\nclaim_timeout = '0s'", "workers.claim_timeout", "longer than none"),
        ("[channels.webhook]\ntimeout = '0s'", "channels.webhook.timeout", "longer than none"),
        (RELAY + RELAY + "timeout = '0s'", "channels.email.relays[1].timeout", "longer than none"),
        ("[retry]\nschedule = ['5s', '5']", "retry.schedule[1]", 'expected a duration such as "90s"'),
        ("[retry]\nschedule = ['4000d']", "retry.schedule[0]", "at most 3650d"),
        (WEBHOOK + "retry = ['x']", "routes[0].retry[0]", "expected a duration"),
        ("[server]\nmax_body = '1MB'", "server.max_body", 'expected a size such as "1MiB"'),
        ("[auth]\nadmin_keys = ['']", "auth.admin_keys[0]", "is empty"),
        ("[auth]\ningest_keys = ['a', ' b']", "auth.ingest_keys[1]", "white space around it"),
        (
            "[channels.webhook]\nallow_networks = ['10.0.0.1/8']",
            "channels.webhook.allow_networks[0]",
            "has host bits set",
        ),
        ("[channels.webhook]\nallow_ports = [0]", "channels.webhook.allow_ports[0]", ">= 1"),
        ("[channels.webhook]\nsecret = []", "channels.webhook.secret", "is an empty list"),
        (WEBHOOK + "secret = []", "routes[0].secret", "is an empty list"),
        ("[channels.webhook]\ndisable_after = '0s'", "channels.webhook.disable_after", "longer than none"),
        ("[breaker]\nopen_for = ['0s']", "breaker.open_for[0]", "longer than none"),
        ("[breaker]\nwindow_failed = 0", "breaker.window_failed", "> 0"),
        ("[breaker]\nfailure = 3", "breaker.failure", "did you mean 'failures'?"),
        ("[[lanes]]\nlane = 'web*:443'", "lanes[0].lane", "its start and one *"),
        ("[[lanes]]\nlane = 'webhook:*'\nburst = 3", "lanes[0].burst", "there is no rate_limit"),
        ("[[lanes]]\nlane = 'webhook:*'\nrate_limit = 0", "lanes[0].rate_limit", "> 0"),
        (
            "[channels.webhook]\nallow_networks = ['10.0.0.0/8', 'lan']",
            "channels.webhook.allow_networks[1]",
            'expected a network such as "10.0.0.0/8"',
        ),
    ],
)
def test_what_can_not_be_used_names_the_key_and_what_was_expected(text: str, key: str, problem: str) -> None:
    """One glance at the message, one edit of the file."""
    error = failure(text)
    assert error.key == key
    assert problem in error.problem
    assert str(error) == f"{error.key}: {error.problem}"


@pytest.mark.parametrize("event", ["*", "a", "order.*", "*.paid", "a.*.b", "*.*", "a-b/c_d.e"])
def test_event_patterns(event: str) -> None:
    """Exact types, and stars for whole segments."""
    assert parse(WEBHOOK.replace("order.*", event)).routes[0].event == event


@pytest.mark.parametrize("event", ["", "a b", "a*", "*a.b", "**", "a.", ".a", "a..b", "a.**", "ü", "a\\n"])
def test_what_is_no_event_pattern(event: str) -> None:
    """A pattern that could never match as its author thinks is refused."""
    error = failure(WEBHOOK.replace("order.*", event))
    assert error.key == "routes[0].event"
    assert error.problem.startswith("expected an event type")


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        (WEBHOOK.replace("url", "to"), "routes[0].url", "is missing: a route by webhook needs it"),
        (WEBHOOK + "to = 'x'", "routes[0].to", "a route by webhook takes 'url' instead"),
        (EMAIL.replace("to =", "url ="), "routes[0].to", "is missing: a route by email needs it"),
        (EMAIL + "url = 'x'", "routes[0].url", "a route by email takes 'to' instead"),
        (EMAIL.replace('template = "t"', ""), "routes[0].template", "an email route needs a template"),
        (EMAIL + "secret = 'x'", "routes[0].secret", "only a webhook route has a secret"),
        (EMAIL.replace("x@example.com", ""), "routes[0].to", "is missing"),
        (EMAIL + WEBHOOK + "to = 'x'", "routes[1].to", "takes 'url' instead"),
        (EMAIL.replace('"email"', '""'), "routes[0].channel", "length >= 1"),
    ],
)
def test_a_route_has_what_its_channel_needs(text: str, key: str, problem: str) -> None:
    """A url for webhooks, a recipient for all others, a template for mail."""
    error = failure(text)
    assert error.key == key
    assert problem in error.problem


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        (EMAIL.replace('"x@example.com"', "[]"), "routes[0].to", "is missing"),
        (EMAIL.replace('"x@example.com"', "['a@b.example', ' ']"), "routes[0].to[1]", "is empty"),
        (EMAIL + "cc = ''", "routes[0].cc", "is empty"),
        (EMAIL + f"bcc = {['a@b.example'] * 100}", "routes[0]", "has 101 recipients in to, cc and bcc"),
        (EMAIL + "category = 'Not One'", "routes[0].category", "matching regex"),
        (EMAIL + "on_unknown = 'forget'", "routes[0].on_unknown", 'expected one of "retry", "fail"'),
        (WEBHOOK + "cc = 'a@b.example'", "routes[0].cc", "only an email route has one"),
        (WEBHOOK + "bcc = ['a@b.example']", "routes[0].bcc", "only an email route has one"),
        (WEBHOOK + "category = 'news'", "routes[0].category", "only an email route has one"),
    ],
)
def test_who_gets_a_mail_and_of_what_kind_it_is(text: str, key: str, problem: str) -> None:
    """Only mails have copies and categories, and nobody is written to in the blank."""
    error = failure(text)
    assert error.key == key
    assert problem in error.problem


def test_a_route_takes_several_recipients() -> None:
    """One, or a list, wherever recipients stand."""
    (route,) = parse(
        EMAIL.replace('"x@example.com"', "['a@b.example', '{{ data.email }}']")
        + "cc = 'c@b.example'\nbcc = ['d@b.example']\ncategory = 'news'\non_unknown = 'fail'"
    ).routes
    assert (route.to, route.cc, route.bcc) == (
        ("a@b.example", "{{ data.email }}"),
        "c@b.example",
        ("d@b.example",),
    )
    assert (route.category, route.on_unknown) == ("news", "fail")
    assert route.destinations == {
        "to[0]": "a@b.example",
        "to[1]": "{{ data.email }}",
        "cc": "c@b.example",
        "bcc[0]": "d@b.example",
    }


@pytest.mark.parametrize(
    "url",
    [
        "https://mail.example.com",
        "https://example.com:8443/notify/",
        "http://127.0.0.1:8080",
        "http://[::1]/",
    ],
)
def test_a_public_url(url: str) -> None:
    """By https, with a path or none; by http to try it on one machine."""
    assert parse(f'[server]\npublic_url = "{url}"').server.public_url == url


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "expected something like"),
        ("mail.example.com", "expected something like"),
        ("https://", "expected something like"),
        ("ftp://mail.example.com", "expected something like"),
        ("https://mail.example.com:x", "expected something like"),
        ("https://[::1", "expected something like"),
        ("https://bücher.example", "expected something like"),
        ("https://mail.example.com/a b", "a path of"),
        ("https://mail.example.com/{x}", "a path of"),
        ("http://mail.example.com", "expected https"),
        ("https://mail.example.com/?a=b", "no user, query or fragment"),
        ("https://mail.example.com/#a", "no user, query or fragment"),
        ("https://ada:x@mail.example.com", "no user, query or fragment"),
        (f"https://mail.example.com/{'a' * 240}", "longer than 256"),
    ],
)
def test_what_is_no_public_url(url: str, problem: str) -> None:
    """Links in mails begin with it, and must lead back to this server."""
    error = failure(f'[server]\npublic_url = "{url}"')
    assert error.key == "server.public_url"
    assert problem in error.problem


LOGIN = RELAY + "username = 'ada'\n"
RULE = "[[channels.email.rules]]\nmeans = 'throttle'\n"


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        (RELAY + "password = 'x'", "channels.email.relays[0].username", "is missing"),
        (RELAY + "auth = 'plain'", "channels.email.relays[0].username", "is missing"),
        (LOGIN, "channels.email.relays[0].password", "is missing: there is a username"),
        (LOGIN + "auth = 'xoauth2'", "channels.email.relays[0].token_file", "is missing"),
        (LOGIN + "password = 'x'\ntoken_file = 'f'", "channels.email.relays[0].token_file", "xoauth2"),
        (
            LOGIN + "password = 'x'\nauth = 'xoauth2'\ntoken_file = 'f'",
            "channels.email.relays[0].password",
            "has no use",
        ),
        (
            RELAY + "auth = 'xoauth2'\ntoken_file = 'f'",
            "channels.email.relays[0].username",
            "is missing",
        ),
        (RELAY + "dot_timeout = '0s'", "channels.email.relays[0].dot_timeout", "longer than none"),
        (RULE, "channels.email.rules[0]", "fits every reply"),
        (RULE + "text = '('", "channels.email.rules[0].text", "is no regular expression"),
        (RULE + "code = '99'", "channels.email.rules[0].code", "matching regex"),
        (RULE.replace("throttle", "x"), "channels.email.rules[0].means", 'expected one of "recipient"'),
    ],
)
def test_what_relays_and_rules_need(text: str, key: str, problem: str) -> None:
    """What would only fail at the first mail is told at the start."""
    error = failure(text)
    assert error.key == key
    assert problem in error.problem


def test_relays_log_in_by_password_or_by_token() -> None:
    """Each with what it needs, and a rule with what it fits."""
    email = parse(
        LOGIN
        + "password = 'x'\n"
        + LOGIN
        + "auth = 'xoauth2'\ntoken_file = 'token'\n"
        + RULE
        + "code = '4xx'\ntext = 'too (many|fast)'"
    ).channels.email
    assert [relay.auth for relay in email.relays] == ["auto", "xoauth2"]
    assert email.rules[0].means == "throttle"


def test_routes_are_named_after_event_and_channel() -> None:
    """A name that is given is kept, and none is given out twice."""
    named = WEBHOOK + 'name = "order.* by webhook"\n'
    names = [route.name for route in parse(WEBHOOK + EMAIL + named + WEBHOOK).routes]
    assert names == ["order.* by webhook #2", "a by email", "order.* by webhook", "order.* by webhook #3"]


def test_two_routes_of_one_name_are_refused() -> None:
    """Jobs are found by the name of their route."""
    error = failure((WEBHOOK + 'name = "x"\n') * 2)
    assert (error.key, error.problem) == ("routes", "two routes are named 'x'")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),  # noqa: S104 - that it is refused is what this shows
        ("::", False),
        ("", False),
        ("192.168.1.1", False),
        ("example.com", False),
        ("localhost.example.com", False),
    ],
)
def test_without_keys_only_loopback_may_be_bound(host: str, expected: bool) -> None:
    """An open API is for this machine alone; with a key any host will do."""
    text = f'[server]\nhost = "{host}"\n'
    assert is_loopback(host) is expected
    if not expected:
        assert failure(text).key == "server.host"
    assert parse(text + '[auth]\nadmin_keys = ["k"]\n').server.host == host


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    """Missing, a folder, not UTF-8, not TOML."""
    path = tmp_path / "c.toml"
    with pytest.raises(ConfigError, match="No such file") as raised:
        load_config(path, {})
    assert raised.value.key == str(path)
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path, {})
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_config(path, {})
    path.write_text("[server\n")
    with pytest.raises(ConfigError, match=r"c\.toml: is not TOML: .*line 1"):
        load_config(path, {})


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No file raises anything but a ConfigError."""
    try:
        config = parse(text)
    except ConfigError:
        return
    assert isinstance(config, Config)
    assert msgspec.structs.asdict(config)["server"] == config.server
