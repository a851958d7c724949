"""What the demonstration serves: the hub's settings for the simulated feed, and the files of the page."""

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from trio_swarm.settings import FeedSettings

NAME = "demo"  # the page reads /v1/hub/demo/events

_HEADERS = {
    "cache-control": "no-cache",
    # The page needs nothing but itself and its stream; a match's name can then never become a script.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:"
    ),
    "x-content-type-options": "nosniff",
}


def feed_settings(url: str) -> FeedSettings:
    """How the hub reads the feed: one subscription to every match, and the match as the topic."""
    return FeedSettings(
        name=NAME,
        url=url,
        protocol="jsonfeed",
        topics=("*",),
        subscribe='{"subscribe": {topics}}',
        unsubscribe='{"unsubscribe": {topics}}',
        topic_path="match",
        skip=("subscribed", "unsubscribed", "error"),
    )


def page_routes() -> list[BaseRoute]:
    """The page at `/`, and its two files."""
    folder = files(__package__)

    def route(path: str, name: str, media_type: str) -> BaseRoute:
        content = folder.joinpath(name).read_bytes()

        async def page(_request: Request) -> Response:
            return Response(content, media_type=media_type, headers=_HEADERS)

        return Route(path, page, methods=["GET"])

    return [
        route("/", "index.html", "text/html"),
        route("/demo.js", "demo.js", "text/javascript"),
        route("/demo.css", "demo.css", "text/css"),
    ]
