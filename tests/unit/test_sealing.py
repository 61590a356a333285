"""Sealing: what is sealed opens in its place and nowhere else, and no key is ever told."""

import base64
import contextlib
import sqlite3
import string
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.builders import NOW, endpoint

from notifier.errors import ConfigError, StoreSealedError
from notifier.store.sealing import Sealer
from notifier.store.sqlite import SqliteStore

PLACE = ("endpoint_secrets", "ep_1")

keys = st.binary(min_size=32, max_size=32)
texts = st.text(st.characters(exclude_categories=["Cs"]))
anything = st.text(string.ascii_letters + string.digits + "+/=:", min_size=1, max_size=1)


@given(texts, st.lists(keys, min_size=1, max_size=3))
def test_what_is_sealed_opens(text: str, given_keys: list[bytes]) -> None:
    """Any text, whatever it looks like, and however many keys there are; the same never looks the same."""
    sealer = Sealer(given_keys)
    sealed = sealer.seal(text, *PLACE)
    assert sealer.open(sealed, *PLACE) == text
    assert sealer.seal(text, *PLACE) != sealed


@given(keys, st.data())
def test_what_is_sealed_and_changed_does_not_open(key: bytes, data: st.DataObject) -> None:
    """Any character put for any other, one taken out or one put in: its mark, key id and spelling count."""
    sealer = Sealer([key])
    sealed = sealer.seal("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", *PLACE)
    at = data.draw(st.integers(0, len(sealed) - 1))
    changes = [
        sealed[:at] + other + sealed[at + gone :] for other in (data.draw(anything), "") for gone in (0, 1)
    ]
    for changed in set(changes) - {sealed}:
        with pytest.raises(StoreSealedError):
            sealer.open(changed, *PLACE)


@given(keys)
def test_no_change_of_a_single_bit_opens(key: bytes) -> None:
    """Not of the nonce, nor of what it seals, nor of the tag; nor a piece of them."""
    sealer = Sealer([key])
    head, _, encoded = sealer.seal("s3cret", *PLACE).rpartition(":")
    raw = base64.b64decode(encoded)
    flipped = [
        raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :] for at in range(len(raw)) for bit in range(8)
    ]
    cut = [raw[:end] for end in range(len(raw))]
    for other in (*flipped, *cut):
        with pytest.raises(StoreSealedError):
            sealer.open(f"{head}:{base64.b64encode(other).decode()}", *PLACE)


def test_what_spells_the_same_bytes_otherwise_does_not_open() -> None:
    """Base64 leaves bits over at its end: only the spelling that was written is taken."""
    sealer = Sealer([b"k" * 32])
    sealed = next(each for text in ("a", "ab", "abc") if (each := sealer.seal(text, *PLACE)).endswith("="))
    last = sealed.rstrip("=")[-1]
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    twin = alphabet[alphabet.index(last) ^ 1]
    changed = sealed.replace(f"{last}=", f"{twin}=")
    assert base64.b64decode(changed.rpartition(":")[2]) == base64.b64decode(sealed.rpartition(":")[2])
    with pytest.raises(StoreSealedError):
        sealer.open(changed, *PLACE)


@given(texts, st.tuples(texts, texts))
def test_what_is_moved_does_not_open(text: str, elsewhere: tuple[str, str]) -> None:
    """The secret of one endpoint can't be put into another's row, nor into another column."""
    sealer = Sealer([b"k" * 32])
    sealed = sealer.seal(text, *PLACE)
    for place in {elsewhere, (PLACE[0], elsewhere[1]), (elsewhere[0], PLACE[1])} - {PLACE}:
        with pytest.raises(StoreSealedError, match="moved"):
            sealer.open(sealed, *place)


@given(keys, keys)
def test_another_key_does_not_open(first: bytes, second: bytes) -> None:
    """It says which key is missing, by its id, and where it is to be given."""
    assume(first != second)
    sealed = Sealer([first]).seal("s3cret", *PLACE)
    with pytest.raises(StoreSealedError, match="NOTIFIER_SECRET_KEY") as refused:
        Sealer([second]).open(sealed, *PLACE)
    assert sealed.split(":")[1] in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_the_first_key_seals_and_all_of_them_open() -> None:
    """That is how a key is changed: the new one before the old."""
    old, new = Sealer([b"o" * 32]), Sealer([b"n" * 32, b"o" * 32])
    sealed = old.seal("s3cret", *PLACE)
    assert new.open(sealed, *PLACE) == "s3cret"
    with pytest.raises(StoreSealedError):
        old.open(new.seal("s3cret", *PLACE), *PLACE)


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ([], [], False),
        ([], [b"n" * 32], True),
        ([b"n" * 32], [b"n" * 32], False),
        ([b"n" * 32], [b"n" * 32, b"o" * 32], False),
        ([b"o" * 32], [b"n" * 32, b"o" * 32], True),
    ],
    ids=["no keys", "a first key", "the same key", "an older key beside it", "a new key before it"],
)
def test_what_is_not_under_the_first_key_is_sealed_anew(
    before: list[bytes], after: list[bytes], changes: bool
) -> None:
    """What is in the clear too; what is as it should be is left alone."""
    kept = Sealer(before).seal("s3cret", *PLACE)
    renewed = Sealer(after).renewed(kept, *PLACE)
    assert (renewed is not None) == changes
    if renewed is not None:
        assert Sealer(after[:1]).open(renewed, *PLACE) == "s3cret"


@pytest.mark.parametrize("given_keys", [[], [b"x" * 32]], ids=["none", "another"])
def test_what_no_key_opens_can_not_be_sealed_anew(given_keys: list[bytes]) -> None:
    """Nor is it taken for a text in the clear."""
    kept = Sealer([b"o" * 32]).seal("s3cret", *PLACE)
    for act in (Sealer(given_keys).renewed, Sealer(given_keys).open):
        with pytest.raises(StoreSealedError, match=kept.split(":")[1]):
            act(kept, *PLACE)


def test_with_a_key_nothing_in_the_clear_is_taken() -> None:
    """All is sealed once a store is open: a text in the clear was put there by someone else."""
    with pytest.raises(StoreSealedError, match="in the clear"):
        Sealer([b"k" * 32]).open("s3cret", *PLACE)


def test_without_a_key_all_stays_in_the_clear() -> None:
    """Save what would be taken for sealed later on."""
    sealer = Sealer()
    assert sealer.seal("s3cret", *PLACE) == "s3cret"
    assert sealer.open("s3cret", *PLACE) == "s3cret"
    with pytest.raises(ValueError, match="in the clear"):
        sealer.seal("sealed:0:0", *PLACE)


# The configuration's key ---------------------------------------------------------------------------


def spelled(*given_keys: bytes) -> str:
    """Keys as `store.secret_key` has them."""
    return ", ".join(base64.b64encode(key).decode() for key in given_keys)


@given(st.lists(keys, min_size=1, max_size=3))
def test_keys_are_read_in_their_order(given_keys: list[bytes]) -> None:
    """The first seals, whatever stands around the commas."""
    sealed = Sealer.from_config(f" {spelled(*given_keys)}\n").seal("s3cret", *PLACE)
    assert Sealer(given_keys[:1]).open(sealed, *PLACE) == "s3cret"


def test_no_key_is_no_sealing() -> None:
    """As the configuration ships."""
    assert Sealer.from_config("").seal("s3cret", *PLACE) == "s3cret"


@pytest.mark.parametrize(
    "malformed",
    [
        "correct horse battery staple",
        spelled(b"k" * 31),
        spelled(b"k" * 33),
        spelled(b"k" * 32).rstrip("="),
        spelled(b"k" * 32) + "x",
        (b"k" * 32).hex(),
        spelled(b"k" * 32) + ",",
        "," + spelled(b"k" * 32),
        spelled(b"k" * 32, b"short"),
        " ",
        "ключ",
    ],
)
def test_a_malformed_key_is_refused_and_not_told(malformed: str) -> None:
    """The error says where it stands and how to make one; not what it is, nor a part of it."""
    with pytest.raises(ConfigError, match="openssl rand -base64 32") as refused:
        Sealer.from_config(malformed)
    assert refused.value.key == "store.secret_key"
    assert "NOTIFIER_SECRET_KEY" in str(refused.value)
    shown = [str(refused.value), repr(refused.value.__cause__), *map(str, refused.value.args)]
    parts = [part.strip() for part in malformed.split(",") if part.strip()]
    assert not [part for part in parts for text in shown if part[:8] in text]


async def test_what_stands_in_the_clear_beside_sealed_texts_was_put_there(tmp_path: Path) -> None:
    """A start seals all there is: what somebody wrote into the file since is not taken for an old secret."""
    store = SqliteStore(tmp_path / "notifier.db", Sealer([b"k" * 32]))
    await store.open(NOW)
    await store.add_endpoint(endpoint(id="ep_1"))
    await store.close()
    with contextlib.closing(sqlite3.connect(store.path)) as database:
        database.execute("UPDATE endpoint SET url = 'https://thief.example/'")
        database.commit()
    with pytest.raises(StoreSealedError, match="endpoint_url of ep_1 stands in the clear"):
        await store.open(NOW)
