"""`pump.py SERVICE`: reads lines on standard input, and writes them to standard output as a process log has them.

It reads what libraries write to a process's standard error past every logger: gRPC's core, C libraries, Python itself
when it crashes. It is a program of its own, so that a process that dies with the interpreter's lock held still gets its
last words into the log. It ends when nobody holds the other end any more. It imports nothing of ours, so that it costs
a few milliseconds and a few megabytes.

Strangers can have such lines written (a failed TLS handshake is one), so they are bounded: a burst, then so many a
second. What is left out is counted, and the last lines before the end are written all the same.
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
_LAST_LINES = 50
_TICK_SECONDS = 1.0
_LEVELS = {"I": "info", "W": "warning", "E": "error", "F": "critical"}
_ABSL = re.compile(r"([IWEF])\d{4} [\d:.]+ +\d+ ")
_PEER = re.compile(r"(ipv[46]|unix)(:|%3A)[^\s,;\"')]+")


class Bound:
    """So many lines at once, and so many a second after that."""

    def __init__(self, now: float) -> None:
        self.left_out = 0
        self.last: deque[bytes] = deque(maxlen=_LAST_LINES)
        self._room = float(_BURST)
        self._seen = now

    def take(self, line: bytes, now: float) -> bool:
        """Whether this line is written. One that is not is counted, and kept for a while."""
        self._room = min(float(_BURST), self._room + (now - self._seen) * _A_SECOND)
        self._seen = now
        if self._room >= 1:
            self._room -= 1
            return True
        self.left_out += 1
        self.last.append(line)
        return False

    def told(self) -> int:
        """How many were left out since this was last asked."""
        count, self.left_out = self.left_out, 0
        self.last.clear()
        return count


def entry(service: str, text: str, level: str, **more: int) -> bytes:
    """A line of the process log."""
    now = time.time()
    second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    stamp = f"{second}.{int(now * 1000) % 1000:03d}+00:00"
    made = {"time": stamp, "level": level, "service": service, "logger": "stderr", "message": text, **more}
    return json.dumps(made).encode() + b"\n"


def described(service: str, line: bytes) -> bytes:
    """What somebody wrote, as a line of the process log. Addresses of peers are no one's business."""
    text = line[:_LINE_BYTES].decode(errors="backslashreplace")
    found = _ABSL.match(text)
    level = _LEVELS[found[1]] if found else "warning"
    return entry(service, _PEER.sub("(peer)", text[found.end() :] if found else text), level)


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
        """What is left at the end."""
        return self.of(b"\n")


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def _pump(service: str) -> None:
    lines, bound = Lines(), Bound(time.monotonic())
    while True:
        ready, _, _ = select.select([0], [], [], _TICK_SECONDS if bound.left_out else None)
        data = os.read(0, 65_536) if ready else None
        now = time.monotonic()
        if data == b"":
            break
        if data:
            _write(b"".join(described(service, line) for line in lines.of(data) if bound.take(line, now)))
        elif bound.left_out:
            _tell(service, bound.told())
    _last(service, bound, lines.end())


def _last(service: str, bound: Bound, rest: list[bytes]) -> None:
    """The process is gone: its last lines are what somebody will look for."""
    last = [*bound.last, *rest][-_LAST_LINES:]
    _tell(service, max(0, bound.left_out + len(rest) - len(last)))
    _write(b"".join(described(service, line) for line in last))


def _tell(service: str, count: int) -> None:
    if count:
        _write(entry(service, "lines were left out", "warning", left_out=count))


def main() -> None:
    """Signals are for the process that this one listens to."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        _pump(sys.argv[1])
    except OSError:
        os._exit(0)  # nobody reads the log any more


if __name__ == "__main__":
    main()
