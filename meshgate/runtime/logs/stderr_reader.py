"""`pump.py SERVICE`: reads lines on standard input, and writes them to standard output as a process log has them.

It reads what libraries write to a process's standard error past every logger: gRPC's core, C libraries, Python itself
when it crashes. It is a program of its own, so that the last output of a process that dies with the interpreter's lock
held still reaches the log. It ends when no process holds the other end any more. It imports nothing of Meshgate, so it
costs a few milliseconds and a few megabytes.

Unauthenticated callers can cause such lines (a failed TLS handshake is one). So they are bounded: a burst, then so many
a second. Omitted lines are counted, and the last lines before the end are always written.

It never makes the process wait. A line for which the log has no room (a collector that stalls, a full disk) is omitted
too, and reading continues.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sys
import time
from collections import deque

_BURST = 100
"""Lines that may come at once, as those of a crash do."""
_A_SECOND = 20.0
_LINE_BYTES = 4096
"""Of a line as it is read, and as it is written: so much goes into a pipe whole (PIPE_BUF)."""
_LAST_LINES = 50
_LAST_SECONDS = 2.0
"""How long the last lines wait for room."""
_TICK_SECONDS = 1.0
_LEVELS = {"I": "info", "W": "warning", "E": "error", "F": "critical"}
_ABSL = re.compile(r"([IWEF])\d{4} [\d:.]+ +\d+ ")
_TOLD = "Failed to add port to server"
"""Lines that the process itself reports better, with the key of its configuration and the remedy."""
_PEER = re.compile(r"(ipv[46]|unix)(:|%3A)[^\s,;\"')]+")


class Bound:
    """So many lines at once, and so many a second after that."""

    def __init__(self, now: float) -> None:
        self.left_out = 0
        self.last: deque[bytes] = deque(maxlen=_LAST_LINES)
        self._room = float(_BURST)
        self._seen = now
        self._told = now

    def take(self, now: float) -> bool:
        """Whether a line may be written."""
        self._room = min(float(_BURST), self._room + (now - self._seen) * _A_SECOND)
        self._seen = now
        if self._room < 1:
            return False
        self._room -= 1
        return True

    def leave_out(self, line: bytes) -> None:
        """Counts a line that is not written, and keeps it for a while."""
        self.left_out += 1
        self.last.append(line)

    def due(self, now: float) -> bool:
        """Whether it is time to tell of lines that were left out: once a second, however many more come."""
        return bool(self.left_out) and now - self._told >= _TICK_SECONDS

    def told(self, now: float) -> None:
        """Notes that the omitted lines have been reported."""
        self._told = now
        self.left_out = 0
        self.last.clear()


def entry(service: str, text: str, level: str, **more: int) -> bytes:
    """A line of the process log."""
    now = time.time()
    second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    stamp = f"{second}.{int(now * 1000) % 1000:03d}+00:00"
    made = {"time": stamp, "level": level, "service": service, "logger": "stderr", "message": text, **more}
    return json.dumps(made).encode() + b"\n"


def described(service: str, line: bytes) -> bytes:
    """A line of standard error as a line of the process log, without addresses of peers."""
    text = line[:_LINE_BYTES].decode(errors="backslashreplace")
    found = _ABSL.match(text)
    level = "info" if _TOLD in text else _LEVELS[found[1]] if found else "warning"
    return _fitting(service, _PEER.sub("(peer)", text[found.end() :] if found else text), level)


def _fitting(service: str, text: str, level: str) -> bytes:
    """The line with as much of the text as fits: an escape takes up to six times what it stands for."""
    made = entry(service, text, level)
    while len(made) > _LINE_BYTES and text:
        text = text[: len(text) * _LINE_BYTES // (len(made) + 1)]
        made = entry(service, text, level)
    return made


class Lines:
    """Bytes cut into lines. A progress bar's carriage returns end lines too; a line without an end is cut."""

    def __init__(self) -> None:
        self._rest = b""

    def of(self, data: bytes) -> list[bytes]:
        """The lines that are complete now."""
        *lines, self._rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        if len(self._rest) > _LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        return [line for line in lines if line.strip()]

    def end(self) -> list[bytes]:
        """The rest at the end."""
        return self.of(b"\n")


def _write(line: bytes, seconds: float = 0.0) -> bool:
    """Whether the log had room for a line, within so many seconds, and took it."""
    try:
        _, ready, _ = select.select([], [1], [], seconds)
        return bool(ready) and os.write(1, line) == len(line)
    except OSError:
        return False


def _pump(service: str) -> None:
    lines, bound = Lines(), Bound(time.monotonic())
    while True:
        ready, _, _ = select.select([0], [], [], _TICK_SECONDS if bound.left_out else None)
        data = os.read(0, 65_536) if ready else None
        now = time.monotonic()
        if data == b"":
            break
        for line in lines.of(data or b""):
            if not (bound.take(now) and _write(described(service, line))):
                bound.leave_out(line)
        if bound.due(now) and _tell(service, bound.left_out):
            bound.told(now)
    _last(service, bound, lines.end())


def _last(service: str, bound: Bound, rest: list[bytes]) -> None:
    """Writes the last lines of a process that has ended, which explain its end."""
    last = [*bound.last, *rest][-_LAST_LINES:]
    _tell(service, max(0, bound.left_out + len(rest) - len(last)), _LAST_SECONDS)
    for line in last:
        if not _write(described(service, line), _LAST_SECONDS):
            return


def _tell(service: str, count: int, seconds: float = 0.0) -> bool:
    return not count or _write(entry(service, "lines were left out", "warning", left_out=count), seconds)


def main() -> None:
    """Signals are for the process that this one listens to."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _pump(sys.argv[1])


if __name__ == "__main__":
    main()
