"""A matrix on disk that numpy can load or map: the .npy format, version 1.0 (NEP 1), written without numpy.

Magic, version, the header's length and the header itself, a Python literal padded with spaces; then the rows. The
header says the final shape from the start, and the file has its final size, so rows that are not made yet are zeros.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

HEADER_BYTES: Final = 128
"""A multiple of 64, as NEP 1 wants it, and enough for any shape that fits a disk."""
_PREFIX: Final = b"\x93NUMPY\x01\x00"
_ROOM: Final = HEADER_BYTES - len(_PREFIX) - 2


class Shape(NamedTuple):
    """What a file holds."""

    rows: int
    columns: int
    descr: str
    """numpy's name of a number, such as <f4; its last part is its bytes."""

    @property
    def row_bytes(self) -> int:
        """Of one row."""
        return self.columns * int(self.descr[2:])

    @property
    def file_bytes(self) -> int:
        """Of the whole file."""
        return HEADER_BYTES + self.rows * self.row_bytes


def header(shape: Shape) -> bytes:
    """The first HEADER_BYTES of a file."""
    said = f"{{'descr': '{shape.descr}', 'fortran_order': False, 'shape': ({shape.rows}, {shape.columns}), }}"
    return _PREFIX + struct.pack("<H", _ROOM) + said.ljust(_ROOM - 1).encode("ascii") + b"\n"


class Matrix:
    """A file that is filled row after row. Use as a context manager."""

    def __init__(self, path: Path, shape: Shape, done: int) -> None:
        """Goes on after `done` rows; 0 makes the file, which must not be there. Raises OSError."""
        self.shape = shape
        self._file = path.open("r+b" if done else "x+b")
        if not done:
            self._file.truncate(shape.file_bytes)
            self._file.write(header(shape))
        self._file.seek(HEADER_BYTES + done * shape.row_bytes)

    def __enter__(self) -> Matrix:
        return self

    def __exit__(self, *ended: object) -> None:
        self._file.close()

    def write(self, rows: bytes) -> None:
        """Appends whole rows."""
        self._file.write(rows)

    def save(self) -> None:
        """Returns once what was written is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
