"""The templates folder: which files a template has for which part and locale, and when one has changed."""

import errno
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import BaseLoader, Environment, TemplateNotFound
from msgspec import Struct, field

from notifier.errors import TemplateError, Unavailable

RECHECK_SECONDS = 1.0
"""How soon a changed, new or removed file is seen."""

_MACHINE_AT_FAULT = frozenset({errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM})
_KEPT_FOLDERS = 1024
_LONGEST_NAME = 4096
_KEPT_CHOICES = 64
_KEPT_BYTES = 64 * 1024**2
_PLAIN = ("",)
_PARTS = {
    ("subject", "txt"): "subject",
    ("body", "html"): "html",
    ("body", "txt"): "text",
    ("payload", "json"): "payload",
    ("attachments", "json"): "attachments",
}
_PART_FILE = re.compile(r"(subject|body|payload|attachments)(?:\.([A-Za-z0-9_-]{1,35}))?\.(txt|html|json)")
_SEGMENT = re.compile(r"[^/\\\x00:]+")
_TEMPLATE_SUFFIXES = frozenset({".html", ".txt", ".json", ".jinja", ".j2"})


Chosen = tuple[tuple[str, str], ...]
"""Parts, each with the file that makes it."""


class Stamp(NamedTuple):
    """What changes with a file's contents."""

    changed_ns: int
    size: int
    inode: int


class _Folder(Struct):
    """What a template has, as it was last looked at."""

    until: float
    """When it is to be looked at again."""
    files: Mapping[tuple[str, str], str]
    """By part and locale."""
    chosen: dict[tuple[frozenset[str], str | None], Chosen] = field(default_factory=dict)


class TemplateFiles(BaseLoader):
    """The templates folder, looked at no more often than every `RECHECK_SECONDS`.

    Template names come from callers of the API: none may lead out of the folder.
    """

    def __init__(self, root: Path, clock: Callable[[], float]) -> None:
        self.root = root
        self._clock = clock
        self._folders: dict[str, _Folder] = {}
        self._stamps: dict[str, tuple[float, Stamp | None]] = {}
        self._contents: dict[tuple[str, str], tuple[Stamp, bytes]] = {}

    def chosen(self, template: str, parts: frozenset[str], locale: str | None) -> Chosen:
        """Each of the parts that has a file, and that file's name. Raises TemplateError for no template."""
        folder = self._folder(template)
        found = folder.chosen.get((parts, locale))
        if found is None:
            if not folder.files:
                raise TemplateError("there is no such template", template=template)
            if len(folder.chosen) >= _KEPT_CHOICES:
                folder.chosen.clear()
            found = folder.chosen[parts, locale] = _choice(folder.files, parts, locale)
        return found

    def _folder(self, template: str) -> _Folder:
        now = self._clock()
        known = self._folders.get(template)
        if known is None or known.until <= now:
            if len(self._folders) >= _KEPT_FOLDERS:
                self._folders.clear()
            known = self._folders[template] = _Folder(now + RECHECK_SECONDS, self._look_for_parts(template))
        return known

    def _look_for_parts(self, template: str) -> dict[tuple[str, str], str]:
        if not _is_inside(template):
            return {}
        try:
            files = sorted(entry.name for entry in (self.root / template).iterdir() if entry.is_file())
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _MACHINE_AT_FAULT:
                raise _unreadable(error) from error
            return {}
        return {part: f"{template}/{name}" for name in files if (part := _part_of(name))}

    def get_source(self, _environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        """Read a file for Jinja2. Raises TemplateNotFound, Unavailable."""
        stamp = self._stamp(template)
        if stamp is None:
            raise TemplateNotFound(template)
        source = _read(self.root / template).decode()
        # Jinja2 mixes file names and template names up in some errors: here both are the same.
        return source, template, lambda: self._stamp(template) == stamp

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return self._stamp(name) is not None

    def size(self, template: str, file: str) -> int:
        """How many bytes a file in a template's folder has. Raises FileNotFoundError."""
        return self._stamp_in(template, file).size

    def content(self, template: str, file: str) -> bytes:
        """What a file in a template's folder holds; it is read anew only when it has changed.

        Raises FileNotFoundError where there is none, or a link leads out of the folder; OSError, Unavailable.
        """
        stamp = self._stamp_in(template, file)
        known = self._contents.get((template, file))
        if known is None or known[0] != stamp:
            known = stamp, self._read_in(template, file)
            if sum(len(content) for _, content in self._contents.values()) + len(known[1]) > _KEPT_BYTES:
                self._contents.clear()
            self._contents[template, file] = known
        return known[1]

    def _stamp_in(self, template: str, file: str) -> Stamp:
        stamp = self._stamp(f"{template}/{file}")
        if stamp is None:
            raise FileNotFoundError(file)
        return stamp

    def _read_in(self, template: str, file: str) -> bytes:
        folder = (self.root / template).resolve()
        path = (folder / file).resolve()
        if not path.is_relative_to(folder):
            raise FileNotFoundError(file)
        return _read(path)

    def _stamp(self, name: str) -> Stamp | None:
        """What changes with a file's contents; None for no file."""
        if len(name) > _LONGEST_NAME:  # an include may be named by the data: nothing to be remembered by
            return None
        now = self._clock()
        known = self._stamps.get(name)
        if known is None or known[0] <= now:
            if len(self._stamps) >= _KEPT_FOLDERS * len(_PARTS):
                self._stamps.clear()
            known = self._stamps[name] = (now + RECHECK_SECONDS, self._look_at(name))
        return known[1]

    def _look_at(self, name: str) -> Stamp | None:
        path = self.root / name
        try:
            if not _is_inside(name) or not path.is_file():
                return None
            found = path.stat()
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _MACHINE_AT_FAULT:
                raise _unreadable(error) from error
            return None
        return Stamp(found.st_mtime_ns, found.st_size, found.st_ino)

    def templates(self) -> list[str]:
        """Every folder that holds a part."""
        places = (name.rpartition("/") for name in self.names())
        return sorted({folder for folder, _, file in places if folder and _part_of(file)})

    def names(self) -> list[str]:
        """Every file that holds a template."""
        files = (path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file())
        return sorted(file.as_posix() for file in files if _is_template(file))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno in _MACHINE_AT_FAULT:
            raise _unreadable(error) from error
        raise


def _unreadable(error: Exception) -> Unavailable:
    """Say that no template can be read just now (too many open files): no job's fault."""
    return Unavailable(f"the templates can't be read: {error}", code="templates_unreadable")


def _is_template(file: Path) -> bool:
    return file.suffix in _TEMPLATE_SUFFIXES and not any(segment.startswith(".") for segment in file.parts)


def _is_inside(name: str) -> bool:
    return all(_SEGMENT.fullmatch(segment) and segment not in {".", ".."} for segment in name.split("/"))


def _part_of(file: str) -> tuple[str, str] | None:
    """Which part, in which locale, a file of a template holds."""
    found = _PART_FILE.fullmatch(file)
    part = _PARTS.get((found[1], found[3])) if found else None
    return (part, _normal(found[2] or "")) if found and part else None


def _normal(locale: str) -> str:
    return locale.replace("_", "-").lower()


def _choice(files: Mapping[tuple[str, str], str], parts: frozenset[str], locale: str | None) -> Chosen:
    tags = _fallbacks(locale) if locale else _PLAIN
    return tuple(
        (part, files[part, tag])
        for part in _PARTS.values()
        if part in parts and (tag := _first(tags, part, files)) is not None
    )


def _first(tags: tuple[str, ...], part: str, known: Mapping[tuple[str, str], str]) -> str | None:
    for tag in tags:
        if (part, tag) in known:
            return tag
    return None


@lru_cache(maxsize=256)
def _fallbacks(locale: str) -> tuple[str, ...]:
    """`fr_CA` → `fr-ca`, `fr`, and the plain one."""
    subtags = _normal(locale).split("-")
    return (*("-".join(subtags[:length]) for length in range(len(subtags), 0, -1)), "")
