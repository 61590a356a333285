"""The webhook channel's own decisions, without a network: urls, lanes, bodies, answers."""

import json
import time
from base64 import b64encode
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from support.builders import NOW, event_record, job

from notifier.channels import ChannelContext, Content, Message
from notifier.channels.targets import target
from notifier.channels.transport import Answer
from notifier.channels.webhook import WebhookChannel, content_digest, judge, retry_after, text_of
from notifier.config import Config, parse_config
from notifier.errors import ConfigError, DeliveryError, Permanent, Transient
from notifier.model import Endpoint, EndpointSecret, Timings

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
TIMINGS = Timings(dns=0.1, connect=0.2, wait=0.3, sent=400, received=50)


def channel(config: Config | None = None, *, secret: str = SECRET, now: float = NOW) -> WebhookChannel:
    """A webhook channel that is not opened."""
    context = ChannelContext(
        config=config or Config(), settings={}, secrets_for=lambda _job: [secret], clock=lambda: now
    )
    return WebhookChannel(context)


def message(
    body: str = '{"total":120}', *, payload: str | None = None, url: str = "https://x.test/h"
) -> Message:
    """A message for a url, with the event's data as it was posted."""
    record = event_record(body=body)
    return Message(job=job(record, destination=url), event=record, content=Content(payload=payload))


def answer(status: int, body: bytes = b"", wait: str | None = None) -> Answer:
    """What a receiver said."""
    return Answer(status, body, TIMINGS, [(b"Retry-After", wait.encode())] if wait else [])


@pytest.mark.parametrize(
    ("url", "lane", "sent"),
    [
        ("https://example.com/hooks", "webhook:example.com:443", "https://example.com/hooks"),
        ("http://example.com", "webhook:example.com:80", "http://example.com/"),
        ("HTTPS://EXAMPLE.com:8443/A", "webhook:example.com:8443", "https://example.com:8443/A"),
        ("http://example.com:80/", "webhook:example.com:80", "http://example.com/"),
        ("http://example.com.:81/", "webhook:example.com:81", "http://example.com.:81/"),
        ("https://bücher.example/ü?q=ü#x", "webhook:xn--bcher-kva.example:443", None),
        ("http://1.1.1.1/", "webhook:1.1.1.1:80", "http://1.1.1.1/"),
        ("http://[2606:4700:0::1111]:81/", "webhook:[2606:4700::1111]:81", "http://[2606:4700::1111]:81/"),
        ("http://under_score.example", "webhook:under_score.example:80", None),
        (
            "https://x.test/h?sig=a%2Fb+c%20&sp=%2Ft%2F#part",
            "webhook:x.test:443",
            "https://x.test/h?sig=a%2Fb+c%20&sp=%2Ft%2F",
        ),
        ("https://x.test/a/../b%7e", "webhook:x.test:443", "https://x.test/a/../b%7e"),
        ("https://x.test?q", "webhook:x.test:443", "https://x.test/?q"),
        ("https://x.test/?next=@y:1", "webhook:x.test:443", "https://x.test/?next=@y:1"),
    ],
)
def test_a_good_url_has_a_lane_and_is_sent_as_given(url: str, lane: str, sent: str | None) -> None:
    """The lane is host and port in one spelling; path and query go out exactly as they were given."""
    assert channel().lane(url) == lane
    if sent is not None:
        assert target(url).url == sent


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "http:// or https://"),
        ("example.com/hooks", "http:// or https://"),
        ("//example.com", "http:// or https://"),
        ("http:example.com", "http:// or https://"),
        ("ftp://example.com", "http:// or https://"),
        ("file:///etc/passwd", "http:// or https://"),
        ("gopher://127.0.0.1:25/_", "http:// or https://"),
        ("javascript:alert(1)", "http:// or https://"),
        ("http://", "no host"),
        ("http:///path", "no host"),
        ("http://:80/", "host or port"),
        ("http://?x", "no host"),
        ("http://user:secret@example.com/", "user name"),
        ("http://@example.com/", "user name"),
        ("http://example.com@127.0.0.1/", "user name"),
        ("http://example.com／@127.0.0.1/", "user name"),
        ("http://example.com/ x", "white space"),
        (" http://example.com/", "white space"),
        ("http://exam\tple.com/", "white space"),
        ("http://example.com/\r\nX-Evil: 1", "white space"),
        ("http://example.com/\u3000", "white space"),
        ("http://example.com\\@127.0.0.1/", "backslash"),
        ("http://exam\0ple.com/", "control"),
        ("http://exam\u00adple.com/", "control"),
        ("http://exam\u200bple.com/", "control"),
        ("http://example.com:0/", "port"),
        ("http://example.com:65536/", "port"),
        ("http://example.com:http/", "port"),
        ("http://example.com:-1/", "port"),
        ("http://example.com:80:90/", "port"),
        ("http://example.com:١/", "port"),
        ("http://::1/", "port"),
        ("http://[::1/", "port"),
        ("http://[1.2.3.4]/", "port"),
        ("http://[v1.a]/", "port"),
        ("http://[::1%25lo]/", "zone"),
        ("http://[::1%1]/", "zone"),
        ("http://exa..mple/", "no name"),
        ("http://.example.com/", "no name"),
        ("http://./", "no name"),
        ("http://-a.example/", "no name"),
        ("http://a,b.example/", "no name"),
        ("http://exa%6dple.com/", "no name"),
        ("http://" + "a" * 64 + ".example/", "no name"),
        ("http://" + "a." * 130 + "example/", "no name"),
        ("http://2130706433/", "plain IPv4"),
        ("http://0/", "plain IPv4"),
        ("http://127.1/", "plain IPv4"),
        ("http://0x7f.0.0.1/", "plain IPv4"),
        ("http://0x7f000001/", "plain IPv4"),
        ("http://0177.0.0.1/", "plain IPv4"),
        ("http://017700000001/", "plain IPv4"),
        ("http://1.1.1.1./", "plain IPv4"),
        ("http://256.1.1.1/", "plain IPv4"),
        ("http://example.0x1/", "plain IPv4"),
        ("https://example.com/" + "a" * 2048, "longer"),
    ],
)
def test_a_bad_url_is_refused_with_what_is_wrong(url: str, problem: str) -> None:
    """What can't be delivered to fails for good, saying why without repeating the url."""
    with pytest.raises(Permanent, match=problem) as refused:
        channel().lane(url)
    assert refused.value.code == "invalid_destination"
    assert "secret" not in refused.value.message


@given(st.text(max_size=60).map("http://{}".format) | st.text(max_size=60))
def test_any_text_has_a_lane_or_is_refused(url: str) -> None:
    """No text makes reading a destination fail in any other way."""
    try:
        made = target(url)
    except Permanent:
        return
    assert made.lane.startswith("webhook:")
    assert made.url.isascii()


def test_the_body_is_the_event_with_its_data_untouched() -> None:
    """Without a template the data's JSON text goes out byte for byte, numbers and order and all."""
    posted = '{"b": 1.10, "a": 12345678901234567890, "ü": "\\u00fc"}'
    body = channel().prepare(message(posted)).body
    assert body == (
        b'{"type":"order.paid","timestamp":"2027-01-15T08:00:00.000Z","data":' + posted.encode() + b"}"
    )
    assert json.loads(body)["data"]["ü"] == "ü"


def test_a_template_makes_the_body() -> None:
    """A payload that the template made goes out as it is, in UTF-8."""
    assert channel().prepare(message(payload='{"ü":1}')).body == '{"ü":1}'.encode()


def test_a_payload_that_is_no_text_fails_the_job() -> None:
    """A payload with a lone surrogate can never be sent."""
    with pytest.raises(Permanent) as failed:
        channel().prepare(message(payload="\ud800"))
    assert failed.value.code == "invalid_payload"


def test_the_preview_is_the_request_that_would_be_sent() -> None:
    """A preview shows method, url, headers and body, in JSON's types, with a signature that verifies."""
    made = message()
    shown = channel(now=time.time()).preview(made)
    msgspec.json.encode(shown)
    assert (shown["method"], shown["url"]) == ("POST", "https://x.test/h")
    assert shown["headers"]["webhook-id"] == made.job.id
    assert shown["headers"]["User-Agent"].startswith("Notifier/")
    Webhook(SECRET).verify(shown["body"], shown["headers"])


def test_every_attempt_has_the_same_id_and_its_own_time() -> None:
    """A second attempt carries the same id, and its own timestamp and signature."""
    made = message()
    first, second = (channel(now=NOW + later).prepare(made).headers for later in (0, 60.9))
    assert first["webhook-id"] == second["webhook-id"]
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 60
    assert first["webhook-signature"] != second["webhook-signature"]


def test_a_bad_secret_fails_the_job_without_showing_it() -> None:
    """A job whose secret is none fails for good, and the secret stays out of the message."""
    with pytest.raises(Permanent, match="whsec_") as failed:
        channel(secret="hunter2").prepare(message())
    assert failed.value.code == "invalid_secret"
    assert "hunter2" not in failed.value.message


def endpoint(*secrets: EndpointSecret, **changes: Any) -> Endpoint:
    """A subscription that stands in front of what a job says."""
    fields: dict[str, Any] = {
        "id": "ep_1",
        "url": "https://hooks.example:8443/in?token=t",
        "event_types": ("*",),
        "created_at": NOW,
        "updated_at": NOW,
        "state_changed_at": NOW,
        "secrets": secrets or (EndpointSecret(OTHER, NOW),),
    }
    return Endpoint(**(fields | changes))


def to(subscription: Endpoint) -> Message:
    """A message of a job that an endpoint caused when its url was another."""
    return msgspec.structs.replace(message(url="https://old.example/"), endpoint=subscription)


def test_an_endpoint_counts_as_it_stands() -> None:
    """Its present url is sent to, query and all, and its own secret signs."""
    made = to(endpoint())
    request = channel(now=time.time()).prepare(made)
    assert request.url == "https://hooks.example:8443/in?token=t"
    Webhook(OTHER).verify(request.body.decode(), request.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(request.body.decode(), request.headers)


def test_secrets_sign_until_they_are_rotated_out() -> None:
    """The newest signs first, the old one as long as its overlap lasts, and not a moment longer."""
    made = to(endpoint(EndpointSecret(OTHER, NOW), EndpointSecret(SECRET, NOW - 9, expires_at=NOW + 60)))
    both, one = (channel(now=NOW + later).prepare(made).headers for later in (59, 60))
    assert len(both["webhook-signature"].split(" ")) == 2
    assert len(one["webhook-signature"].split(" ")) == 1
    alone = channel(now=NOW + 59).prepare(msgspec.structs.replace(made, endpoint=endpoint())).headers
    assert both["webhook-signature"].split(" ")[0] == alone["webhook-signature"]


@pytest.mark.parametrize("expired", [True, False])
def test_nothing_is_sent_unsigned(expired: bool) -> None:
    """An endpoint whose secrets are all over, or that has none, fails the job for good."""
    bare = endpoint(EndpointSecret(OTHER, NOW - 9, expires_at=NOW)) if expired else endpoint(secrets=())
    with pytest.raises(Permanent) as failed:
        channel().prepare(to(bare))
    assert failed.value.code == "invalid_secret"


def test_custom_headers_go_along() -> None:
    """An endpoint's headers are added, and stand in for the three that say nothing of the delivery."""
    custom = {"X-Team": "a b", "Authorization": "Bearer x", "user-agent": "Shop/1", "ACCEPT": "text/plain"}
    custom["Content-type"] = "application/vnd.shop+json"
    headers = channel().prepare(to(endpoint(headers=custom))).headers
    assert custom.items() <= headers.items()
    assert len({name.lower() for name in headers}) == len(headers) == 9


@pytest.mark.parametrize(
    "name",
    [
        *("webhook-id", "Webhook-Signature", "WEBHOOK-anything", "Content-Digest", "HOST"),
        *("Content-Length", "Transfer-Encoding", "Connection", "Proxy-Authorization", "Expect"),
    ],
)
def test_no_custom_header_changes_what_is_signed_or_how_it_is_framed(name: str) -> None:
    """Whatever an endpoint holds, these headers stay the notifier's own."""
    plain = channel().prepare(to(endpoint())).headers
    headers = channel().prepare(to(endpoint(headers={name: "evil"}))).headers
    assert "evil" not in headers.values()
    assert headers.keys() == plain.keys()


@pytest.mark.parametrize(
    "header", [("X\r\nY", "z"), (" webhook-id", "z"), ("X:", "z"), ("", "z"), ("X", "a\nb")]
)
def test_a_header_that_could_be_two_fails_the_job(header: tuple[str, str]) -> None:
    """A custom header that is not one plain line fails for good, without being shown."""
    with pytest.raises(Permanent) as failed:
        channel().prepare(to(endpoint(headers=dict([header]))))
    assert failed.value.code == "invalid_headers"
    assert "z" not in failed.value.message


@pytest.mark.parametrize("payload", ["", "x", "ü" * 100_000])
def test_every_request_carries_the_digest_of_its_body(payload: str) -> None:
    """`Content-Digest` is that of RFC 9530: it tells a changed body from a wrong secret."""
    request = channel().prepare(message(payload=payload))
    digest = b64encode(sha256(payload.encode()).digest()).decode()
    assert request.headers["Content-Digest"] == f"sha-256=:{digest}:"


def test_the_digest_is_as_the_rfc_has_it() -> None:
    """The example of RFC 9530 §B.1 comes out."""
    assert content_digest(b'{"hello": "world"}\n') == (
        "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
    )


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[channels.webhook]\nsecret = "hunter2"', "channels.webhook.secret"),
        (
            '[[routes]]\nevent = "*"\nchannel = "webhook"\nurl = "https://x.test"\nsecret = "whsec_hunter2"',
            "routes[0].secret",
        ),
    ],
)
def test_a_bad_secret_in_the_configuration_is_named_by_its_key(text: str, key: str) -> None:
    """The channel doesn't start with a secret that can't sign; the error has the key and not the secret."""
    with pytest.raises(ConfigError) as refused:
        channel(parse_config(text))
    assert refused.value.key == key
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_a_receipt(status: int) -> None:
    """Every 2xx is delivered, and what was said is kept."""
    receipt = judge(answer(status, b"thanks"), lambda: NOW)
    assert (receipt.status_code, receipt.response) == (status, "thanks")


@pytest.mark.parametrize(
    "status", [101, 300, 301, 302, 303, 307, 308, 400, 401, 404, 409, 429, 500, 502, 503, 600]
)
def test_everything_else_is_tried_again(status: int) -> None:
    """What is neither 2xx nor 410 is a Transient whose code has the status."""
    with pytest.raises(Transient) as failed:
        judge(answer(status, b"no"), lambda: NOW)
    raised = failed.value
    assert (raised.code, raised.status_code, raised.response) == (f"http_{status}", status, "no")
    assert raised.retry_after is None


def test_gone_is_gone() -> None:
    """410 fails for good, with what the receiver said."""
    with pytest.raises(Permanent) as failed:
        judge(answer(410, b"bye"), lambda: NOW)
    assert (failed.value.code, failed.value.status_code, failed.value.response) == ("http_410", 410, "bye")


@pytest.mark.parametrize(
    ("status", "wait"),
    [(429, 120.0), (502, 120.0), (503, 120.0), (504, 120.0), (500, None), (404, None), (302, None)],
)
def test_retry_after_counts_where_it_is_meant(status: int, wait: float | None) -> None:
    """Only who is busy, or stands before one that is, may say how long to wait; it is not cut short here."""
    with pytest.raises(Transient) as failed:
        judge(answer(status, wait="120"), lambda: NOW)
    assert failed.value.retry_after == wait


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        *((status, True) for status in (101, 301, 302, 307, 401, 403, 404, 405, 408, 425, 429, 451)),
        *((status, True) for status in (500, 501, 502, 503, 504, 599, 600)),
        *((status, False) for status in (400, 409, 410, 413, 415, 422)),
    ],
)
def test_an_answer_about_the_one_request_is_no_fault_of_its_lane(status: int, fault: bool) -> None:
    """One that dislikes a body is well; one that redirects, denies or breaks is not. 410 is apart."""
    with pytest.raises(DeliveryError) as failed:
        judge(answer(status), lambda: NOW)
    assert failed.value.lane_fault is fault


@pytest.mark.parametrize("status", [204, 302, 410, 503])
def test_every_verdict_says_where_the_time_went(status: int) -> None:
    """Timings are on receipts and on errors alike."""
    try:
        timings = judge(answer(status), lambda: NOW).timings
    except DeliveryError as error:
        timings = error.timings
    assert timings == TIMINGS


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        ("Fri, 15 Jan 2027 08:02:00 GMT", 120.0),
        ("Friday, 15-Jan-27 08:02:00 GMT", 120.0),
        ("Fri Jan 15 08:02:00 2027", 120.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("9" * 5000, None),
        ("Fri, 99 Jan 2027 08:02:00 GMT", None),
    ],
)
def test_retry_after_is_read_in_either_form(value: str | None, seconds: float | None) -> None:
    """Seconds and all three date forms are read; the past is now; what is neither is ignored."""
    assert retry_after(value, NOW) == seconds


@given(st.text(max_size=40))
def test_no_retry_after_breaks_anything(value: str) -> None:
    """Whatever stands in the header, it is seconds to wait or nothing."""
    assert (retry_after(value, NOW) or 0.0) >= 0.0


@given(st.binary(max_size=1024))
def test_any_response_becomes_text_that_can_be_kept(body: bytes) -> None:
    """A response is text without NUL, in Unicode that can be encoded."""
    assert "\0" not in text_of(body)
    text_of(body).encode()
