"""Mail to bytes, at the same arguments the same ones, so that a retry can be equal.

Written out here because the standard library takes a millisecond a mail, and folds what it must not.
"""

from notifier.channels.mime.letter import Letter, compose

__all__ = ["Letter", "compose"]
