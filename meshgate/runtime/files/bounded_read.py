"""Files of the configuration, read whole, with a bound, and only where they are files."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read(path: Path, max_bytes: int) -> bytes:
    """The content of a file. Raises OSError, for a longer one and for what is no file too.

    A pipe without a writer would keep the start waiting for ever, and a device may have no end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"longer than {max_bytes:,} bytes", str(path))
    return content
