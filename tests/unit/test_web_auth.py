"""Who gets in: scopes of keys, and this machine alone where there are no keys."""

import pytest
from aiohttp.test_utils import make_mocked_request

from notifier.config import Auth
from notifier.web.auth import Gate, Scope, names_loopback
from notifier.web.problems import ProblemError

KEYED = Gate(Auth(ingest_keys=("ingest-1", "ingest-2"), admin_keys=("admin-1",)))
KEYLESS = Gate(Auth())


def refusal(gate: Gate, scope: Scope, method: str = "GET", **headers: str) -> ProblemError | None:
    """What a gate says to a request; None when it lets it in."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        gate.admit(make_mocked_request(method, "/", headers=named), scope)
    except ProblemError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("key", "scope", "status"),
    [
        ("ingest-1", Scope.INGEST, None),
        ("ingest-2", Scope.INGEST, None),
        ("admin-1", Scope.INGEST, None),
        ("admin-1", Scope.ADMIN, None),
        ("ingest-1", Scope.ADMIN, 403),
        ("unknown", Scope.INGEST, 401),
        ("unknown", Scope.OPEN, None),
        ("ingest", Scope.INGEST, 401),
        ("", Scope.ADMIN, 401),
    ],
)
def test_a_key_opens_what_its_scope_says(key: str, scope: Scope, status: int | None) -> None:
    """Ingest keys reach ingest, admin keys reach everything, others nothing that asks for a key."""
    refused = refusal(KEYED, scope, Authorization=f"Bearer {key}")
    assert (refused and refused.status) == status


@pytest.mark.parametrize("value", ["", "admin-1", "Basic admin-1", "Bearer", "Bearer  "])
def test_what_is_no_bearer_key_is_asked_for_one(value: str) -> None:
    """A refusal for want of a key says which scheme is understood (RFC 9110 §11.6.1)."""
    refused = refusal(KEYED, Scope.ADMIN, Authorization=value)
    assert refused is not None
    assert (refused.status, refused.headers) == (401, {"WWW-Authenticate": 'Bearer realm="notifier"'})


def test_the_scheme_is_named_in_any_case() -> None:
    """`bearer` is the same scheme."""
    assert refusal(KEYED, Scope.ADMIN, Authorization="bearer admin-1") is None


def test_a_wrong_scope_is_told_from_an_unknown_key() -> None:
    """RFC 6750 §3.1: `insufficient_scope`, and the scope that would do."""
    refused = refusal(KEYED, Scope.ADMIN, Authorization="Bearer ingest-1")
    assert refused is not None
    assert 'error="insufficient_scope", scope="admin"' in refused.headers["WWW-Authenticate"]


def test_with_keys_any_host_is_answered() -> None:
    """The rule of local names is for notifiers without keys."""
    assert refusal(KEYED, Scope.OPEN, Host="notifier.example") is None


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8080", "LocalHost:1", "127.0.0.1", "127.9.8.7:80", "[::1]", "[::1]:8080"],
)
def test_names_of_this_machine_are_answered_without_keys(host: str) -> None:
    """Whatever names loopback is served, whichever port."""
    assert names_loopback(host)
    assert refusal(KEYLESS, Scope.ADMIN, Host=host) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "notifier.example",
        "notifier.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "evil.example:80:localhost",
        "192.168.1.5",
        "0.0.0.0",  # noqa: S104 - nothing is bound
        "[::2]",
        "[::1",
        "::1",
        "localhost:http",
    ],
)
def test_a_rebound_name_is_refused_without_keys(host: str) -> None:
    """DNS rebinding: a page's own name that now leads to 127.0.0.1 gets nothing, from open calls neither."""
    for scope in Scope:
        refused = refusal(KEYLESS, scope, Host=host)
        assert refused is not None
        assert refused.status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://[::1"},
        {"Origin": "http://localhost.evil.example"},
    ],
)
def test_other_sites_pages_change_nothing_without_keys(headers: dict[str, str]) -> None:
    """A browser's request from another site may read (it can't see the answer), and may not change."""
    refused = refusal(KEYLESS, Scope.ADMIN, "POST", Host="localhost", **headers)
    assert refused is not None
    assert refused.status == 403
    assert refusal(KEYLESS, Scope.ADMIN, "GET", Host="localhost", **headers) is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://localhost:8080", "Sec_Fetch_Site": "same-origin"},
        {"Origin": "http://127.0.0.1:3000", "Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
    ],
)
def test_this_machines_pages_and_programs_may_change_without_keys(headers: dict[str, str]) -> None:
    """Programs such as curl send neither header, and local pages are at home."""
    assert refusal(KEYLESS, Scope.INGEST, "POST", Host="localhost:8080", **headers) is None


# Links -----------------------------------------------------------------------------------------------

PUBLISHED = Gate(Auth(), "https://mail.example.com")


@pytest.mark.parametrize("host", ["mail.example.com", "notifier:8080", "127.0.0.1:8080", ""])
def test_a_link_is_answered_by_whatever_name_a_proxy_calls(host: str) -> None:
    """A mail server's POST comes with the public name, or that which a proxy has for us; no key is asked."""
    for gate in (PUBLISHED, Gate(Auth(admin_keys=("admin-1",)), "https://mail.example.com")):
        assert refusal(gate, Scope.LINK, "POST", Host=host, Origin="https://mail.example.com") is None
        assert refusal(gate, Scope.LINK, "POST", Host=host, Sec_Fetch_Site="cross-site") is None


def test_a_public_url_opens_nothing_but_links() -> None:
    """Everything else keeps to this machine where there are no keys."""
    for scope in (Scope.OPEN, Scope.INGEST, Scope.ADMIN):
        refused = refusal(PUBLISHED, scope, Host="mail.example.com")
        assert refused is not None
        assert refused.status == 403


def test_without_a_public_url_links_keep_to_this_machine() -> None:
    """There are none then, so nothing has a reason to call them from elsewhere."""
    refused = refusal(KEYLESS, Scope.LINK, "POST", Host="mail.example.com")
    assert refused is not None
    assert refused.kind == "not-local"
    assert refusal(KEYLESS, Scope.LINK, Host="localhost") is None
    assert refusal(KEYED, Scope.LINK, "POST", Host="mail.example.com") is None
