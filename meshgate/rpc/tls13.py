"""Makes TLS 1.3 the lowest version of this process. Import it before grpc, first thing in a server's `__main__`.

grpcio has no setting for the lowest TLS version. It has one for the cipher suites of TLS 1.2 and below, read when grpc
is imported, so we leave TLS 1.2 nothing to agree on: an RSA suite only, while `tls.server_credentials` insists on keys
that are not RSA. TLS 1.3 has its own suites, which that setting does not touch. The SDK does not do this: it would
change every other channel of the program it is part of, and the server decides anyway.
"""

from __future__ import annotations

import os
import sys
from typing import Final

VARIABLE: Final = "GRPC_SSL_CIPHER_SUITES"
RSA_ONLY: Final = "ECDHE-RSA-AES256-GCM-SHA384"

if os.environ.get(VARIABLE) != RSA_ONLY:
    if "grpc" in sys.modules:
        raise ImportError("meshgate.rpc.tls13 must be imported before grpc")
    os.environ[VARIABLE] = RSA_ONLY
