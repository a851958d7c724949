"""The floor: what this machine asks for sending these bytes to that many sockets, with nothing around it.

A bare loop over `sock.send`, read by the same client program as the service. A pass sends one event to every socket
(and so again until there were at least a thousand sends, as the service's bursts follow on each other); passes wait
for each other, so the kernel's buffers never fill. What a pass costs is process CPU time, which has the kernel's
part of the send in it.
"""

import socket
import time
from typing import Any

from benchmarks.children import inherited_line, raise_file_limit
from benchmarks.payload import wire_bytes

_SENDS = 1_000  # a pass is at least this many, or its time is too short to mean anything


def main() -> None:
    """Serve the parent's line."""
    raise_file_limit()
    line = inherited_line()
    listener = socket.create_server(("127.0.0.1", 0), backlog=4_096)
    line.send({"address": listener.getsockname()})
    sockets: list[socket.socket] = []
    rounds = number = 0
    while (message := line.receive(600.0)) is not None:
        if message["do"] == "accept":
            line.send(_accept(listener, sockets, message["clients"]))
            rounds = max(1, _SENDS // len(sockets))
        else:
            batch = [wire_bytes(message["transport"], number + index + 1, "") for index in range(rounds)]
            number += rounds
            cpu_s = _pass(sockets, batch)
            events = rounds * len(sockets)
            line.send({"us": cpu_s * 1e6 / events, "events": events})


def _accept(listener: socket.socket, sockets: list[socket.socket], clients: int) -> dict[str, Any]:
    while len(sockets) < clients:
        sock, _ = listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets.append(sock)
    return {"clients": clients}


def _pass(sockets: list[socket.socket], batch: list[bytes]) -> float:
    began = time.process_time()
    for data in batch:
        for sock in sockets:
            sock.send(data)
    return time.process_time() - began


if __name__ == "__main__":
    main()
