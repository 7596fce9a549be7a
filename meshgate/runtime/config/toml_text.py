"""The text of a configuration file: TOML 1.0, with errors that say which key is meant."""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

_LINE: Final = re.compile(r"\(at line (\d+), column \d+\)")
_KEY: Final = re.compile(r"""\s*\[{0,2}\s*([A-Za-z0-9_."'*/ -]{1,200}?)\s*(?:=|\]{1,2}\s*(?:#|$))""")
_TWICE: Final = ("Cannot overwrite a value", "Cannot declare", "Cannot mutate immutable namespace")
_MARK: Final = b"\xef\xbb\xbf"


def parsed(content: bytes) -> dict[str, Any]:
    """The content of the file. Raises ValueError, whose text names the problem and its position."""
    if not content.strip():
        raise ValueError("the file is empty; deploy/config has one to begin with")
    if content.startswith(_MARK):
        raise ValueError("not valid TOML: it begins with a byte order mark; save it as UTF-8 without one")
    try:
        text = content.decode("utf-8")
        return tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"not valid TOML: not UTF-8 at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(_said(str(error), text)) from None
    except RecursionError:
        raise ValueError("not valid TOML: nested too deeply") from None


def _said(error: str, text: str) -> str:
    """tomllib's words, but for what stands twice: those name no key, or show it as Python has it."""
    found = _LINE.search(error)
    key = _KEY.match(text.split("\n")[int(found.group(1)) - 1]) if found else None
    if found is None or key is None or not error.startswith(_TWICE):
        return f"not valid TOML: {error}"
    return f"{key.group(1)}: is there twice, again in line {found.group(1)}; leave one out"
