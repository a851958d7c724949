"""`GET /metrics`: what the service counts, for Prometheus."""

from typing import TYPE_CHECKING

from trio_swarm.edge.answers import Receive, Scope, Send
from trio_swarm.edge.paths import Target
from trio_swarm.edge.queries import header
from trio_swarm.errors import RequestRefused
from trio_swarm.health.metrics import form_for

if TYPE_CHECKING:
    from trio_swarm.edge.app import Edge


async def metrics(edge: "Edge", scope: Scope, _receive: Receive, send: Send, _target: Target) -> None:
    """Answer with the page in the form that is asked for.

    Raises:
        RequestRefused: there are no metrics here.
    """
    if edge.metrics is None:
        raise RequestRefused(404, "not_found", "there is nothing here")
    form = form_for((header(scope, b"accept") or b"").decode("latin-1"))
    page = await edge.metrics.page(form)
    headers = [
        (b"content-type", form.encode()),
        (b"content-length", b"%d" % len(page)),
        (b"cache-control", b"no-store"),
        (b"vary", b"accept"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": page, "more_body": False})
