"""Sends HTTP requests over kept connections and prints the figures as JSON.

`benchmarks.posts` and `benchmarks.pollers` start it as a process, with `Calls` as JSON on its standard input.
"""

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Calls:
    """What to send."""

    port: int
    """Of the loopback."""
    paths: list[str]
    """Asked for in turn; each client begins with another one."""
    clients: int
    seconds: float
    every_s: float = 0
    """From the begin of a client's call to that of its next one; 0: as soon as the last one is answered."""
    method: str = "GET"
    body_hex: str = ""
    expected: tuple[int, ...] = (200, 551)
    """What other status is an error."""


@dataclass(frozen=True)
class Figures:
    """What came of it."""

    calls: int
    rate: float
    """Per second."""
    p50_ms: float
    p99_ms: float
    longest_ms: float
    errors: dict[str, int] = field(default_factory=dict)


def send(calls: Calls) -> Figures:
    """Send them from a process of its own, so that what is measured shares nothing with whoever measures."""
    command = [sys.executable, "-m", "benchmarks.http_calls"]
    done = subprocess.run(command, input=json.dumps(asdict(calls)).encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return Figures(**json.loads(done.stdout))


class _Load:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._body = bytes.fromhex(calls.body_hex)
        self._seconds: list[float] = []
        self._errors: dict[str, int] = {}

    async def run(self) -> Figures:
        began = time.perf_counter()
        ends_at = began + self._calls.seconds
        await asyncio.gather(*(self._repeat(number, ends_at) for number in range(self._calls.clients)))
        passed, spent = time.perf_counter() - began, sorted(self._seconds) or [0.0]
        at = {share: spent[min(len(spent) - 1, int(len(spent) * share))] * 1000 for share in (0.5, 0.99, 1)}
        return Figures(len(self._seconds), len(self._seconds) / passed, at[0.5], at[0.99], at[1], self._errors)

    async def _repeat(self, number: int, ends_at: float) -> None:
        every_s = self._calls.every_s
        # Spread over the time between two calls, as clients that began at any time are.
        due = time.perf_counter() + every_s * number / self._calls.clients
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        turn = number
        while True:
            await asyncio.sleep(max(0.0, due - time.perf_counter()) if every_s else 0)
            began = time.perf_counter()
            if began >= ends_at:
                break
            due += every_s
            path = self._calls.paths[turn % len(self._calls.paths)]
            turn += 1
            try:
                streams = streams or await asyncio.open_connection("127.0.0.1", self._calls.port)
                status = await self._call(*streams, path)
                if status not in self._calls.expected:
                    self._note(str(status))
            except (OSError, asyncio.IncompleteReadError) as error:
                streams = None
                self._note(type(error).__name__)
            self._seconds.append(time.perf_counter() - began)
        if streams is not None:
            streams[1].close()

    def _note(self, error: str) -> None:
        self._errors[error] = self._errors.get(error, 0) + 1

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> int:
        head = f"{self._calls.method} {path} HTTP/1.1\r\nHost: localhost\r\n"
        if self._body:
            head += f"Content-Type: application/zip\r\nContent-Length: {len(self._body)}\r\n"
        writer.write(head.encode() + b"\r\n" + self._body)
        answer = await reader.readuntil(b"\r\n\r\n")
        for line in answer.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                await reader.readexactly(int(line.partition(b":")[2]))
        return int(answer.split(b" ", 2)[1])


if __name__ == "__main__":
    given = json.loads(sys.stdin.buffer.read())
    given["expected"] = tuple(given["expected"])
    print(json.dumps(asdict(asyncio.run(_Load(Calls(**given)).run()))))
