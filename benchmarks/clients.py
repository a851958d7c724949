"""The clients of a benchmark: ten thousand sockets, one loop, plain Python.

A client costs the loop one `recv` and one comparison a range (see `reading.py`), so that a second core keeps up with
the server. Every event is checked: its number, its id, its topic. Latency runs from the time that the payload
carries to the `recv` that completed the event; CLOCK_MONOTONIC is the same in every process.

Questions, over the line to the parent:
    connect   open clients and wait until each has been greeted
    expect    wait for so many more events
    report    everything counted
    forget    the latencies so far
    check     the faults of all clients, given how many events there were
    digests   each client's hash
"""

import gc
import json
import secrets
import select
import socket
import sys
import time
from typing import Any

from benchmarks.children import Line, inherited_line, raise_file_limit
from benchmarks.reading import Digest, Malformed, Reader, Tally

_WINDOW = 200  # handshakes under way at once: the server answers them as it can
_PER_ADDRESS = 5_000  # clients from one source address
_BIND_ADDRESS_NO_PORT = 24  # Linux; the port is chosen at connect, or thousands in TIME_WAIT make choosing slow
_BUFFER = 1 << 18
_LARGE = 4_096  # below this, an incomplete read is simply parsed
_TICK_NS = 10_000  # resolution of the latencies
_HANDSHAKE_S = 30.0
_CLIENT_BACKLOG = 4_096  # sockets reported by one poll


class Client:
    """One socket and what it has had."""

    __slots__ = ("reader", "sock", "tally")

    def __init__(self, sock: socket.socket, reader: Reader, tally: Tally) -> None:
        self.sock = sock
        self.reader = reader
        self.tally = tally


class Clients:
    """All of them, and the loop."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._poll = select.epoll()
        self._poll.register(line.sock, select.EPOLLIN)
        self._clients: dict[int, Client] = {}
        self._all: list[Client] = []
        self._readers: dict[tuple[str, bool], Reader] = {}
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self.greeted = 0
        self.events = 0
        self.reads = 0
        self.last_ns = 0
        self._due = 0
        self._cpu_s = 0.0
        self.others: dict[str, int] = {}
        self.faults: dict[str, int] = {"closed": 0, "malformed": 0}
        self.latencies: dict[int, int] = {}

    def run(self) -> None:
        """Serve the line until it ends."""
        while True:
            if not self._line_waiting():
                self._turn(1.0)
                continue
            message = self._line.receive(5.0)
            if message is None:
                return
            self._line.send(getattr(self, f"do_{message.pop('do')}")(**message))

    def do_connect(
        self,
        address: list[Any],
        transport: str,
        clients: int,
        stream: str = "",
        wants: list[str | None] | None = None,
        since: str | None = None,
        *,
        numbered: bool = True,
    ) -> dict[str, Any]:
        """Open clients; without a `stream` the server is the floor, which sends without being asked."""
        wants = wants or [None]
        reader = self._readers.setdefault((transport, numbered), Reader(transport, numbered=numbered))
        began = time.monotonic()
        done = 0
        while done < clients:
            window = range(done, min(done + _WINDOW, clients))
            opened = []
            for index in window:
                topic = wants[index % len(wants)]
                number = -1 if topic is None else index % len(wants)
                tally = Tally(number) if numbered else Digest(number)
                sock = self._open(address, len(self._all))
                opened.append((Client(sock, reader, tally), topic))
                if stream:
                    sock.sendall(_request(transport, address, stream, topic, since))
            wanted = self.greeted + len(opened)
            for client, topic in opened:
                rest = b""
                if stream:
                    rest = _head(client.sock, 101 if transport == "ws" else 200)
                    if transport == "ws":
                        client.sock.sendall(_subscribe(stream, topic, since))
                self._adopt(client, rest)
            if stream:
                self._until_greeted(wanted)
            done += len(opened)
        gc.collect()
        gc.freeze()
        return {"clients": clients, "seconds": round(time.monotonic() - began, 3)}

    def do_expect(self, events: int, timeout_s: float, nap_s: float = 0.0) -> dict[str, Any]:
        """Wait for so many more events, then answer. With `nap_s` the loop sleeps that long between two looks."""
        deadline = time.monotonic() + timeout_s
        cpu = time.process_time()
        self._due += events
        while self.events < self._due and time.monotonic() < deadline:
            self._turn(min(0.5, max(0.0, deadline - time.monotonic())))
            if nap_s:
                time.sleep(nap_s)
        self._cpu_s += time.process_time() - cpu
        return {"complete": self.events >= self._due, "events": self.events, "last_ns": self.last_ns}

    def do_report(self, settle_s: float) -> dict[str, Any]:
        """Wait a moment for what should not come, then answer with everything counted."""
        settled = time.monotonic() + settle_s
        while time.monotonic() < settled:
            self._turn(0.05)
        return {
            "events": self.events,
            "reads": self.reads,
            "bytes": sum(client.tally.bytes for client in self._all),
            "cpu_s": self._cpu_s,
            "latency_ms": _percentiles(self.latencies),
            "others": self.others,
            **self.faults,
        }

    def do_forget(self) -> dict[str, Any]:
        """Forget the latencies so far: a new phase begins."""
        self.latencies.clear()
        return {}

    def do_check(self, due: list[int]) -> dict[str, Any]:
        """Answer with the sums of all faults; `due` is the events due, by topic number (one entry: to everyone)."""
        total: dict[str, int] = {}
        for client in self._all:
            count = due[client.tally.topic] if client.tally.topic >= 0 else due[0]
            for name, value in client.tally.statistics(count).items():
                total[name] = total.get(name, 0) + value
        return total

    def do_digests(self) -> dict[str, Any]:
        """Answer with each client's number of events and hash."""
        return {"digests": [[client.tally.topic, client.tally.statistics(0)] for client in self._all]}

    def _open(self, address: list[Any], index: int) -> socket.socket:
        sock = socket.socket()
        sock.settimeout(_HANDSHAKE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        sock.bind((f"127.0.0.{2 + index // _PER_ADDRESS}", 0))
        sock.connect((address[0], address[1]))
        return sock

    def _adopt(self, client: Client, rest: bytes) -> None:
        client.sock.setblocking(False)
        self._clients[client.sock.fileno()] = client
        self._all.append(client)
        if rest:
            self._take(client, rest)
        self._poll.register(client.sock, select.EPOLLIN)

    def _until_greeted(self, wanted: int) -> None:
        deadline = time.monotonic() + _HANDSHAKE_S
        while self.greeted < wanted:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{wanted - self.greeted} clients were not greeted; {self.faults}, {self.others}")
            self._turn(1.0)

    def _line_waiting(self) -> bool:
        return bool(select.select([self._line.sock], [], [], 0)[0])

    def _turn(self, timeout_s: float) -> None:
        clients = self._clients
        for fd, _ in self._poll.poll(timeout_s, _CLIENT_BACKLOG):
            client = clients.get(fd)
            if client is None:
                continue  # the line: the caller looks at it
            try:
                size = client.sock.recv_into(self._buffer)
            except BlockingIOError:
                continue
            except OSError:
                size = 0
            if size:
                self._take(client, bytes(self._view[:size]))
            else:
                self._poll.unregister(fd)
                del clients[fd]
                client.sock.close()
                self.faults["closed"] += 1

    def _take(self, client: Client, data: bytes) -> None:
        now = time.monotonic_ns()
        tally = client.tally
        reader = client.reader
        size = len(data)
        tally.bytes += size
        self.reads += 1
        if tally.tail:
            data = tally.tail + data
        if size > _LARGE and not data.endswith(reader.ending):
            tally.tail = data  # more of this range is on its way: reading it now would be reading it twice
            return
        try:
            reading = reader.read(data)
        except Malformed as error:
            self.faults["malformed"] += 1
            self.others[str(error)] = self.others.get(str(error), 0) + 1
            tally.tail = b""
            return
        tally.tail = reading.rest
        if reading.events:
            tally.take(reading)
            self.events += len(reading.events)
            self.last_ns = now
            latencies = self.latencies
            for stamp, count in reading.stamps:
                if not stamp:
                    continue
                tick = (now - stamp) // _TICK_NS
                latencies[tick] = latencies.get(tick, 0) + count
        if reading.others or reading.pings:
            self._other(client, reading.others, reading.pings)

    def _other(self, client: Client, names: tuple[str, ...], pings: int) -> None:
        for name in names:
            if name in {"hello", "subscribed"}:
                self.greeted += 1
            elif name != "position":
                self.others[name] = self.others.get(name, 0) + 1
        if pings:
            client.sock.send(b"\x8a\x80\0\0\0\0" * pings)


def _percentiles(latencies: dict[int, int]) -> dict[str, float]:
    total = sum(latencies.values())
    result: dict[str, float] = {}
    seen = 0
    wanted = [("p50", 0.50), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)]
    for tick, count in sorted(latencies.items()):
        seen += count
        while wanted and seen >= wanted[0][1] * total:
            result[wanted.pop(0)[0]] = round((tick + 0.5) * _TICK_NS / 1e6, 3)
    return result


def _request(transport: str, address: list[Any], stream: str, topic: str | None, since: str | None) -> bytes:
    if transport == "sse":
        asked = [f"{key}={value}" for key, value in (("topics", topic), ("since", since)) if value is not None]
        path = f"/v1/{stream}/events" + ("?" + "&".join(asked) if asked else "")
        fields = "Accept: text/event-stream\r\n"
    else:
        path = "/v1/ws"
        fields = (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        )
    return f"GET {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n{fields}\r\n".encode()


def _subscribe(stream: str, topic: str | None, since: str | None) -> bytes:
    data: dict[str, Any] = {"stream": stream}
    if topic is not None:
        data["topics"] = [topic]
    if since is not None:
        data["since"] = since
    body = json.dumps({"type": "subscribe", "messageId": "1", "data": data}).encode()
    mask = secrets.token_bytes(4)
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(body))
    length = bytes([0x80 | len(body)]) if len(body) < 126 else b"\xfe" + len(body).to_bytes(2, "big")
    return b"\x81" + length + mask + masked


def _head(sock: socket.socket, status: int) -> bytes:
    """Read the answer's head; return what came behind it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65_536)
        if not more:
            raise ConnectionError(f"closed after {data[:200]!r}")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 %d" % status):
        raise ConnectionError(f"answered {data[:400]!r}")
    if status == 200 and b"transfer-encoding: chunked" not in head.lower():
        raise ConnectionError(f"not chunked: {head!r}")
    return rest


def main() -> None:
    """Serve the parent's line."""
    raise_file_limit()
    line = inherited_line()
    try:
        Clients(line).run()
    except (OSError, TimeoutError) as error:
        line.send({"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)


if __name__ == "__main__":
    main()
