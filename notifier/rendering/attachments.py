"""What a rendered `attachments.json` says → the files that go with a mail.

They come from the template's own folder or, in base64, from the event. What can't be meant is a
`TemplateError` that names the file and the entry.
"""

import binascii
import mimetypes
import re

import msgspec
from msgspec import Raw, Struct

from notifier.channels import Attachment
from notifier.errors import TemplateError
from notifier.rendering.files import TemplateFiles

MAX_ATTACHMENT = 5 * 1024**2
"""How many bytes one attachment may have."""
MAX_MESSAGE = 20 * 1024**2
"""How many bytes the attachments of a mail may have together."""
MAX_ENTRIES = 100
"""How many attachments a mail may have."""

OCTETS = "application/octet-stream"
_LONGEST_NAME = 255
# RFC 6838 §4.2
_TYPE = re.compile(r"([A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126})/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")
_COMPOSITE = frozenset({"multipart", "message"})
_INLINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

# Python's own table alone, so that every machine says the same; and what it doesn't know yet.
_types = mimetypes.MimeTypes()
_OFFICE = "application/vnd.openxmlformats-officedocument"
for _ending, _type in {
    ".docx": f"{_OFFICE}.wordprocessingml.document",
    ".ics": "text/calendar",
    ".md": "text/markdown",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".pptx": f"{_OFFICE}.presentationml.presentation",
    ".vcf": "text/vcard",
    ".webp": "image/webp",
    ".xlsx": f"{_OFFICE}.spreadsheetml.sheet",
}.items():
    _types.add_type(_type, _ending)


class _Entry(Struct, frozen=True, forbid_unknown_fields=True):
    filename: str | None = None
    file: str | None = None
    content: str | None = None
    type: str | None = None
    inline: str | None = None


class _UnfitError(ValueError):
    """An entry that can't be attached, in words for the template's author."""


_entries = msgspec.json.Decoder(list[Raw])
_entry = msgspec.json.Decoder(_Entry)


class Attachments:
    """Reads lists of attachments. Sizes are in bytes, of what is attached before it is encoded."""

    def __init__(self, files: TemplateFiles, *, max_each: int, max_together: int) -> None:
        self._files = files
        self._max_each = max_each
        self._max_together = max_together

    def read(self, template: str, name: str, text: str) -> tuple[Attachment, ...]:
        """Read the JSON that `name`, a file of a template's folder, made. Raises TemplateError."""
        try:
            entries = _entries.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise TemplateError(f"expected a JSON list: {error}", template=name) from None
        if len(entries) > MAX_ENTRIES:
            problem = f"there are {len(entries)} entries, more than the {MAX_ENTRIES} that a mail may have"
            raise TemplateError(problem, template=name)
        return self._together(template, name, entries)

    def _together(self, template: str, name: str, entries: list[Raw]) -> tuple[Attachment, ...]:
        made: list[Attachment] = []
        for number, text in enumerate(entries, 1):
            where = f"entry {number}"
            try:
                entry = _decoded(text)
                where = _named(number, entry)
                made.append(self._attachment(template, entry))
                self._check_together(made)
            except _UnfitError as error:
                raise TemplateError(f"{where}: {error}", template=name) from None
        return tuple(made)

    def _attachment(self, template: str, entry: _Entry) -> Attachment:
        if (entry.file is None) == (entry.content is None):
            raise _UnfitError('expected either "file" or "content"')
        filename = _checked_name(entry)
        return Attachment(
            filename=filename,
            media_type=_guessed(filename) if entry.type is None else _checked_type(entry.type),
            content=self._of_event(entry.content) if entry.file is None else self._of(template, entry.file),
            inline=None if entry.inline is None else _checked_inline(entry.inline),
        )

    def _of(self, template: str, file: str) -> bytes:
        """Read a file of the template's folder, looked at before it is read."""
        try:
            self._check_size(self._files.size(template, file))
            content = self._files.content(template, file)
        except FileNotFoundError:
            raise _UnfitError(f"there is no file {file!r} in the template's folder") from None
        except OSError as error:
            raise _UnfitError(f"{file!r} can't be read: {error.strerror}") from None
        self._check_size(len(content))
        return content

    def _of_event(self, content: str | None) -> bytes:
        """Decode base64 (RFC 4648 §4), strictly: what was cut off or garbled is not sent as if whole."""
        text = content or ""
        self._check_size(len(text) // 4 * 3 - 2)  # at least that
        try:
            decoded = binascii.a2b_base64(text, strict_mode=True)
        except (binascii.Error, ValueError) as error:
            raise _UnfitError(f'"content" is no base64, without spaces and line ends: {error}') from None
        self._check_size(len(decoded))
        return decoded

    def _check_size(self, size: int) -> None:
        if size > self._max_each:
            raise _UnfitError(
                f"it has {size:,} bytes, more than channels.email.max_attachment ({self._max_each:,})"
            )

    def _check_together(self, made: list[Attachment]) -> None:
        """Hold the list to what can't be too much, and the names that the HTML uses apart."""
        *before, last = made
        if last.inline is not None and any(last.inline == other.inline for other in before):
            raise _UnfitError(f'"inline" {last.inline!r} is used before: each names one')
        size = sum(len(each.content) for each in made)
        if size > self._max_together:
            raise _UnfitError(
                f"with it they have {size:,} bytes, more than channels.email.max_message "
                f"({self._max_together:,})"
            )


def _decoded(text: Raw) -> _Entry:
    try:
        return _entry.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _UnfitError(" ".join(str(error).replace("`", "'").split())) from None


def _named(number: int, entry: _Entry) -> str:
    """Name an entry in an error: by its number, from 1, and what it calls itself."""
    name = entry.filename or entry.file
    return f"entry {number} ({name[:80]!r})" if name else f"entry {number}"


def _checked_name(entry: _Entry) -> str:
    """The name that the recipient sees; a file has its own."""
    name = entry.filename if entry.filename is not None else (entry.file or "").rpartition("/")[2]
    if not name.strip(". ") or len(name) > _LONGEST_NAME or not name.isprintable() or set(name) & {"/", "\\"}:
        problem = f"1 to {_LONGEST_NAME} characters of one line, without / and \\"
        raise _UnfitError(f'expected a "filename": {problem}')
    return name


def _checked_type(given: str) -> str:
    found = _TYPE.fullmatch(given)
    if found is None:
        raise _UnfitError(f'expected a "type" such as "application/pdf", got {given[:80]!r}')
    if found[1].lower() in _COMPOSITE:  # RFC 2045 §6.4: they can't be base64
        raise _UnfitError(f'"type" {given!r} is of what holds other messages; {OCTETS!r} can be attached')
    return given.lower()


def _guessed(filename: str) -> str:
    """Tell a file's type by the ending of its name."""
    guessed, encoding = _types.guess_type(filename.replace(":", ""))  # which it would take for a URL
    if encoding is not None:
        return "application/gzip" if encoding == "gzip" else OCTETS
    return OCTETS if guessed is None or guessed.partition("/")[0] in _COMPOSITE else guessed


def _checked_inline(name: str) -> str:
    if not _INLINE.fullmatch(name):
        characters = "A-Z a-z 0-9 . _ -, as the HTML has it in cid:NAME"
        raise _UnfitError(f'expected an "inline" name of {characters}, got {name[:80]!r}')
    return name
