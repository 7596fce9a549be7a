"""The reference of the audit record, made from its schema."""

from __future__ import annotations

from typing import Final

from gateway.audit.record import KINDS, AuditRecord
from tools.reference import docstrings
from tools.reference.markdown import Pages, anchored, page, prose, table

_HEAD: Final = """\
An audit record of a call is one JSON object with these fields, sorted by name. An empty or zero field is left out.
`meshgate audit search` and `meshgate audit tail --json` print such records."""
_TYPES: Final = {str: "string", int: "integer", dict: "object of integers"}


def pages() -> Pages:
    """One page with one table."""
    told = docstrings.of_fields(AuditRecord)
    rows = [(anchored(name), _TYPES[KINDS[name]], prose(told[name])) for name in sorted(KINDS)]
    return {"audit-record.md": page("Audit record", _HEAD, table(("field", "type", "meaning"), rows))}
