"""The base of everything written to disk as JSON: unknown keys refused by name, files replaced whole or not at all."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from edge_latup.errors import SpecError


class Record(BaseModel):
    """Frozen pydantic model that refuses unknown keys and names the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _name_nearest_key(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data.keys() - cls.model_fields.keys():
                nearest = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                advice = f"; did you mean {nearest[0]!r}?" if nearest else f"; known keys: {', '.join(cls.model_fields)}"
                raise ValueError(f"unknown key {key!r} in {cls.__name__}{advice}")
        return data


RecordT = TypeVar("RecordT", bound=Record)


def read_record(kind: type[RecordT], path: Path) -> RecordT:
    """Read one record from a JSON file.

    Raises:
        SpecError: the file is missing, is not JSON, or does not match `kind`; the message names the file and the key.
    """
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(f"{path} does not exist", f"give the path of a {kind.__name__} JSON file") from None
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror or error}", f"give the path of a {kind.__name__} JSON file") from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not a valid {kind.__name__}: {summary_of(error)}", "correct the file or make it anew") from error


def summary_of(error: ValidationError | UnicodeDecodeError) -> str:
    """What is wrong, key by key, in one line."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    parts = [f"{'.'.join(str(step) for step in item['loc']) or 'top level'}: {item['msg']}" for item in error.errors()]
    return "; ".join(parts)


def write_record(record: Record, path: Path) -> None:
    """Write `record` as indented JSON, replacing `path` in one step."""
    write_text(record.model_dump_json(indent=2) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write UTF-8 `text`, replacing `path` in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: Path, suffix: str = "") -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed onto `path`, on failure removed.

    `suffix` is for writers that choose a format by the file's ending, such as ".nii.gz".
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=f".part{suffix}")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
