"""`config.toml` → frozen structs. An error names the key, what stands there and what was expected."""

from notifier.config.checks import EVENT_PATTERN, is_loopback
from notifier.config.reading import SECRET_KEY, load_config, parse_config
from notifier.config.sections import (
    Auth,
    BreakerSection,
    Channels,
    Config,
    EmailSection,
    Lanes,
    Relay,
    Retention,
    Retry,
    Route,
    Server,
    StoreSection,
    Templates,
    WebhookSection,
    Workers,
)
from notifier.config.units import Duration, Size, parse_duration, parse_size

__all__ = [
    "EVENT_PATTERN",
    "SECRET_KEY",
    "Auth",
    "BreakerSection",
    "Channels",
    "Config",
    "Duration",
    "EmailSection",
    "Lanes",
    "Relay",
    "Retention",
    "Retry",
    "Route",
    "Server",
    "Size",
    "StoreSection",
    "Templates",
    "WebhookSection",
    "Workers",
    "is_loopback",
    "load_config",
    "parse_config",
    "parse_duration",
    "parse_size",
]
