"""Jinja2: the templates that make a job's content, and the expressions of the configuration."""

from notifier.rendering.expressions import Condition, Text
from notifier.rendering.files import RECHECK_SECONDS
from notifier.rendering.renderer import MAX_OUTPUT, Renderer

__all__ = ["MAX_OUTPUT", "RECHECK_SECONDS", "Condition", "Renderer", "Text"]
