"""A webhook exactly as the notifier sends it, without a network: for whoever has to verify one."""

from support.builders import NOW, event_record, job

from notifier.channels import ChannelContext, Content, Message
from notifier.channels.transport import PreparedRequest
from notifier.channels.webhook import WebhookChannel
from notifier.config import Config

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PRIVATE = "whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk="


def delivery(
    *secrets: str, data: str = '{"total":120}', payload: str | None = None, now: float = NOW
) -> PreparedRequest:
    """Make the request that delivers an event's data, or a payload, signed by the secrets (or by SECRET)."""
    context = ChannelContext(
        config=Config(), settings={}, secrets_for=lambda _job: secrets or (SECRET,), clock=lambda: now
    )
    record = event_record(body=data)
    message = Message(job=job(record), event=record, content=Content(payload=payload))
    return WebhookChannel(context).prepare(message)


def raw(request: PreparedRequest, *, line_end: str = "\r\n") -> bytes:
    """Write a request as it goes over the wire."""
    head = ["POST /hooks HTTP/1.1", "Host: receiver.example"]
    head += [f"{name}: {value}" for name, value in request.headers.items()]
    head.append(f"Content-Length: {len(request.body)}")
    return (line_end.join(head) + line_end * 2).encode() + request.body
