"""Options that several commands have, and checks of what protobuf can't carry. Ranges are the services' business."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from meshgate.cli.failures import UsageError
from meshgate.numerals import written

Texts = Annotated[list[str] | None, typer.Argument(help="One or more texts.", show_default=False)]
File = Annotated[Path | None, typer.Option(help="A file with a text on each line.", show_default=False)]
Sealed = Annotated[bool, typer.Option("--sealed", help="Encrypt the call to the gateway (HPKE).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the response as protobuf JSON.")]
Model = Annotated[str, typer.Option(help="Name or alias. Default: the service's own.", show_default=False)]
MaxTokens = Annotated[int | None, typer.Option(help="The most tokens of an answer.", show_default=False)]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy. Default: the service's own.", show_default=False)]
System = Annotated[str, typer.Option(help="Instructions that stand above the conversation.", show_default=False)]


TRUNCATING: Final = {"INPUT_TOO_LONG": "; --truncate cuts it at the end"}
"""What helps against a reason, for commands that can cut texts."""


def whole(flag: str, value: int | None, bits: int = 32) -> int | None:
    """A number that a protobuf field of so many bits can carry. Raises UsageError."""
    if value is not None and not 0 <= value < 2**bits:
        raise UsageError(f"{flag}: must be a whole number from 0 to {written(2**bits - 1)}")
    return value


def unless_empty(message: Any) -> Any:
    """A message of options, or None where none is given: what is sent is then what a caller without options sends, byte
    for byte, and so has the same digest in the audit log.
    """
    return message if message.ByteSize() else None
