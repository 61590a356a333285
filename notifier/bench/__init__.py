"""What `notifier bench` measures: this machine's disk, and a real `notifier serve` between two ends of ours.

Everything stays on loopback and in one temporary folder. Nothing that serves imports any of it.
"""

from notifier.errors import NotifierError


class BenchError(NotifierError):
    """Something can't be measured; the message says what, and why."""
