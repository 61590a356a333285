"""How long the lines of a mail may be, and how words are put on them."""

from typing import TypeVar

CRLF = "\r\n"
LINE = 78
"""The length that a line should keep to, without its CRLF (RFC 5322 §2.1.1)."""
ENCODED_LINE = 76
"""The same for a header line with an encoded word (RFC 2047 §2), and for quoted-printable and base64."""
LONGEST_LINE = 998
"""The length that no line may pass (RFC 5322 §2.1.1)."""

_Piece = TypeVar("_Piece", str, bytes)


def folded(name: str, words: list[str], width: int) -> str:
    """Put the words of a header on lines no wider than `width` where they fit (RFC 5322 §2.2.3)."""
    lines = [f"{name}: {words[0]}"]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(" " + word)
    return CRLF.join(lines)


def runs(pieces: list[_Piece], first: int, rest: int) -> list[list[_Piece]]:
    """Share pieces out into runs that are no longer than `first` and, after that, `rest`."""
    shared: list[list[_Piece]] = [[]]
    room = first
    for piece in pieces:
        if len(piece) > room and shared[-1]:
            shared.append([])
            room = rest
        shared[-1].append(piece)
        room -= len(piece)
    return shared
