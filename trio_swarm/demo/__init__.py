"""The demonstration: a live feed of simulated football matches, and a page on which they move.

    football.py     one match: goals, cards, clock, prices                                pure
    simulation.py   a board of matches, the same for the same seed                        pure
    feed.py         the board as a WebSocket feed, as a data provider would sell it
    board.py        what is served: the hub's settings for that feed, and the page's routes
    index.html, demo.js, demo.css   the page: a plain EventSource on /v1/hub/demo/events

Nothing here is private to the demonstration: the feed is read over a real socket by the `jsonfeed` protocol, and the
page is a client like any other.
"""

from trio_swarm.demo.board import feed_settings, page_routes
from trio_swarm.demo.feed import serve_feed
from trio_swarm.demo.simulation import Simulation

__all__ = ["Simulation", "feed_settings", "page_routes", "serve_feed"]
