"""The recorder of call paths: a process that has it on its path says which functions it entered."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

RECORDER = Path(__file__).parents[3] / "tools" / "call_path" / "recorder"
PROGRAM = """
import threading

def used():
    pass

def used_by_a_thread():
    pass

def unused():
    pass

def again():
    pass

used()
thread = threading.Thread(target=used_by_a_thread)
thread.start()
thread.join()
print("ready", flush=True)
input()
again()
print("ready", flush=True)
input()
"""


def _entered(path: Path) -> set[str]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    return {name for file, name in json.loads(answer)["entered"] if file == "<string>"}


def test_each_answer_names_the_functions_entered_since_the_last(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(RECORDER), "CALL_PATH_SOCKETS": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        sock = tmp_path / f"{process.pid}.sock"
        assert {"used", "used_by_a_thread"} <= _entered(sock)
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ready\n"
        entered = _entered(sock)
        process.stdin.close()
    assert "again" in entered
    assert not entered & {"used", "used_by_a_thread", "unused"}
