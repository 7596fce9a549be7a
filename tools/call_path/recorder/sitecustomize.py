"""Notes each function that this process enters, and writes the list to each connection of its socket.

Python imports this module by its name before any other, in each process whose PYTHONPATH has this folder. So a whole
mesh is recorded without a line in the processes themselves. A profile function sees every thread that Python starts.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from types import CodeType, FrameType
from typing import Any

_entered: set[CodeType] = set()


def _note(frame: FrameType, event: str, _argument: Any) -> None:
    if event == "call":
        _entered.add(frame.f_code)


def _serve(folder: str) -> None:
    """Answers each connection with the functions entered since the last one."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/{os.getpid()}.sock")
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(json.dumps(_taken()).encode())


def _taken() -> dict[str, Any]:
    entered = list(_entered)  # one step of the interpreter: other threads add to it
    _entered.clear()
    return {"process": sys.orig_argv[1:], "entered": [(code.co_filename, code.co_qualname) for code in entered]}


if "CALL_PATH_SOCKETS" in os.environ:
    threading.Thread(target=_serve, args=(os.environ["CALL_PATH_SOCKETS"],), daemon=True).start()
    threading.setprofile(_note)
    sys.setprofile(_note)
