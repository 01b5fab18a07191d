"""Records as the one sequence of bytes that can be signed: sorted keys, ASCII, two spaces, one newline at the end."""

from __future__ import annotations

import json
from typing import Final, TypeVar

from pydantic import ValidationError

from edge_latup.bundle.refusal import refused
from edge_latup.records import Record, summary_of

RecordT = TypeVar("RecordT", bound=Record)

MADE_OTHERWISE: Final = "it was not written by edge-latup; ask its maker for the original bundle"


def canonical_bytes(record: Record) -> bytes:
    """The only form of `record` that is signed, and the only one that is read back."""
    data = record.model_dump(mode="json")
    return (json.dumps(data, indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


def from_canonical(kind: type[RecordT], content: bytes, name: str) -> RecordT:
    """Read a record, refusing every other way of writing it: keys twice or unknown, another order or spacing, NaN, 1e3, escapes.

    Raises:
        VerificationError: `content` is not exactly what `canonical_bytes` makes of a valid record.
    """
    try:
        record = kind.model_validate_json(content)
    except ValidationError as error:
        raise refused(name, f"is not a valid {kind.__name__}: {_short(summary_of(error))}", MADE_OTHERWISE) from error
    if canonical_bytes(record) != content:
        raise refused(name, "is not in its canonical form (keys twice, in another order, or otherwise spaced)", MADE_OTHERWISE)
    return record


def _short(text: str) -> str:
    plain = ascii(text)[1:-1]
    return plain if len(plain) <= 300 else f"{plain[:300]}..."
