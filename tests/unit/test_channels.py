"""The registry: how a channel comes to be known, and what is said of one that can't be."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.builders import event_record, job

from notifier import channels
from notifier.channels import ChannelContext, FunctionChannel, Message, Receipt
from notifier.config import Config, parse_config
from notifier.errors import ConfigError, Permanent

PLUGIN = """
from notifier import Message, Receipt, channel

@channel("{name}", timeout=7)
async def deliver(message: Message) -> Receipt:
    return Receipt(response="by {name}")
"""

channels.load(Config())  # so that the registry which every test starts from holds the built-in ones


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has a registry of its own, and leaves no module or path behind."""
    path = [*sys.path]
    built_in = {name: channels._factories[name] for name in ("email", "webhook")}
    monkeypatch.setattr(channels, "_factories", built_in)
    yield
    sys.path[:] = path
    for name in [name for name in sys.modules if name.startswith("plugin_")]:
        del sys.modules[name]


def context(config: Config) -> ChannelContext:
    """What a channel is built from."""
    return ChannelContext(
        config=config, settings={}, secrets_for=lambda _job: ["whsec_" + "A" * 32], clock=lambda: 0.0
    )


def loaded(config: Config) -> dict[str, channels.Channel]:
    """All channels that a configuration brings."""
    channels.load(config)
    return channels.build(lambda _name: context(config))


def config_in(folder: Path, text: str) -> Config:
    """A configuration that stands in a folder."""
    return parse_config(text, {}, source=folder / "config.toml")


async def test_a_function_becomes_a_channel() -> None:
    """One decorator registers a coroutine under its name; its receipt is the delivery's."""

    @channels.channel("carrier-pigeon", timeout=3)
    async def send(message: Message) -> Receipt:
        return Receipt(status_code=1, response=message.destination)

    built = loaded(Config())["carrier-pigeon"]
    message = Message(job=job(destination="roof"), event=event_record())
    assert await built.deliver(message) == Receipt(status_code=1, response="roof")
    assert (built.timeout, built.parts) == (3, channels.ALL_PARTS)
    assert send is not None


async def test_a_function_may_return_nothing() -> None:
    """A channel that returns without a receipt is taken at its word."""

    async def send(_message: Message) -> None: ...

    built = FunctionChannel("quiet", send, 1)  # type: ignore[arg-type] # what a careless author writes
    assert await built.deliver(Message(job=job(), event=event_record())) == Receipt()


def test_all_of_a_registered_channel_is_one_lane() -> None:
    """Its destinations share the lane of its name, and an empty one is refused."""

    async def send(_message: Message) -> Receipt:
        return Receipt()

    built = FunctionChannel("sms", send, 1)
    assert built.lane("+49123") == "sms"
    with pytest.raises(Permanent, match="empty"):
        built.lane("  ")


@pytest.mark.parametrize("name", ["", "SMS", "1st", "a b", "x" * 65, "ä"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    """Names are lower-case letters, digits, `-` and `_`."""
    with pytest.raises(ConfigError, match="no channel name"):
        channels.channel(name)


def test_a_name_that_is_taken_is_refused() -> None:
    """Two things under one name would be anyone's guess."""

    async def send(_message: Message) -> Receipt:
        return Receipt()

    loaded(Config())
    with pytest.raises(ConfigError, match="registered twice"):
        channels.channel("email")(send)


def test_what_can_not_deliver_is_refused() -> None:
    """A plain function is no channel."""

    def send(_message: Message) -> Receipt:
        return Receipt()

    with pytest.raises(ConfigError, match="async function"):
        channels.channel("sms")(send)  # type: ignore[type-var] # what a careless author writes


async def test_a_plugin_beside_the_configuration_is_loaded(tmp_path: Path) -> None:
    """A module named in `plugins` is found in the folder of `config.toml`."""
    (tmp_path / "plugin_beside.py").write_text(PLUGIN.format(name="beside"))
    built = loaded(config_in(tmp_path, 'plugins = ["plugin_beside"]'))["beside"]
    receipt = await built.deliver(Message(job=job(), event=event_record()))
    assert (receipt.response, built.timeout) == ("by beside", 7)


async def test_an_installed_package_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that offers a module under `notifier.channels` needs no word in the configuration."""
    (tmp_path / "plugin_installed.py").write_text(PLUGIN.format(name="installed"))
    info = tmp_path / "plugin_installed-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-installed\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[notifier.channels]\ninstalled = plugin_installed\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    receipt = await loaded(Config())["installed"].deliver(Message(job=job(), event=event_record()))
    assert receipt.response == "by installed"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (None, "ModuleNotFoundError"),
        ("1 / 0", "ZeroDivisionError"),
        ("def", "SyntaxError"),
        ('from notifier import channel\nchannel("BAD")', "no channel name"),
    ],
)
def test_a_plugin_that_fails_to_import_is_named(tmp_path: Path, source: str | None, told: str) -> None:
    """What goes wrong in a plugin's module is a ConfigError, never a traceback at a user."""
    if source is not None:
        (tmp_path / "plugin_broken.py").write_text(source)
    with pytest.raises(ConfigError, match=told):
        channels.load(config_in(tmp_path, 'plugins = ["plugin_broken"]'))


def test_a_route_to_no_channel_is_named() -> None:
    """A route or table for a channel that nobody registered says which there are."""
    with pytest.raises(
        ConfigError, match=r"routes\[0\].channel: no channel 'sms'; there are: email, webhook"
    ):
        channels.load(parse_config('[[routes]]\nevent = "*"\nchannel = "sms"\nto = "x"', {}))
    with pytest.raises(ConfigError, match=r"channels.sms: no channel 'sms'"):
        channels.load(parse_config("[channels.sms]\nkey = 1", {}))
