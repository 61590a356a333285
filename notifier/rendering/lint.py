"""Replay lint: what of the latest deliveries could not be made any more by a template as it stands now."""

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from notifier.channels import ALL_PARTS, Channel
from notifier.errors import TemplateError
from notifier.model import EventRecord, Job
from notifier.rendering.renderer import Renderer


class Break(Struct, frozen=True, kw_only=True):
    """A job that a template could not be rendered for: where it breaks, and by which variable if by one."""

    template: str
    event_id: str
    job_id: str
    file: str
    line: int | None
    variable: str | None
    problem: str

    @property
    def where(self) -> str:
        """The file and line."""
        return self.file if self.line is None else f"{self.file}:{self.line}"


def breaks(
    template: str,
    recent: Iterable[tuple[Job, EventRecord]],
    renderer: Renderer,
    channels: Mapping[str, Channel],
    unsubscribe_url: Callable[[Job], str | None],
) -> list[Break]:
    """Render a template for jobs that were real, each with the parts that its channel sends.

    `unsubscribe_url` says by which link a job's recipient could unsubscribe. Raises Unavailable.
    """
    found = []
    for job, event in recent:
        channel = channels.get(job.channel)
        try:
            renderer.render(
                template,
                ALL_PARTS if channel is None else channel.parts,
                event=event,
                data=event.decoded_data(),
                job=job,
                locale=job.locale,
                unsubscribe_url=unsubscribe_url(job),
            )
        except TemplateError as error:
            found.append(_break(template, job, error))
    return found


def _break(template: str, job: Job, error: TemplateError) -> Break:
    return Break(
        template=template,
        event_id=job.event_id,
        job_id=job.id,
        file=error.template,
        line=error.line,
        variable=error.variable,
        problem=error.problem,
    )
