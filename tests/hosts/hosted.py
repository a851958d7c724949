"""An application for hosts to serve in a process of their own; its clients can be looked at from outside."""

import structlog
from starlette.responses import JSONResponse
from starlette.routing import Route

from trio_swarm import DurableObject, Settings, create_app, exposed
from trio_swarm.settings import LivenessSettings


class Room(DurableObject):
    publishable = True

    @exposed
    async def double(self, number: int):
        return number * 2


async def clients(request):
    return JSONResponse(app.swarm.tree()["clients"])


structlog.configure(logger_factory=structlog.PrintLoggerFactory())
app = create_app(
    objects=[Room],
    settings=Settings(liveness=LivenessSettings(shutdown_s=3.0)),
    pages=[Route("/clients", clients)],
)
