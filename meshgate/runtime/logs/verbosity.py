"""How much gRPC's core writes to standard error. Import it before grpc, first thing in a `__main__`.

gRPC reads GRPC_VERBOSITY when it is imported. Unless the environment says otherwise a server's says ERROR: at gRPC's
own default each failed TLS handshake is a line, for everyone who can reach the port.
"""

from __future__ import annotations

import os
from typing import Final

VARIABLE: Final = "GRPC_VERBOSITY"

os.environ.setdefault(VARIABLE, "ERROR")
