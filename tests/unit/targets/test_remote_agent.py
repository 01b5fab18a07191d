"""What the agent on another host does with files that are brought; the rest of it is tested over SSH, in tests/integration."""

from __future__ import annotations

import fcntl
import hashlib
import io
from pathlib import Path

import pytest

from edge_latup.targets import remote_agent
from edge_latup.targets.remote_agent import AgentError, put

CONTENT = b"weights" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_agent.signal, "alarm", lambda seconds: None)


def brought(blobs: Path, content: bytes, offset: int = 0, size: int = len(CONTENT)) -> None:
    put(blobs, SHA, size, offset, io.BufferedReader(io.BytesIO(content)))  # type: ignore[arg-type]


def test_a_file_is_whole_in_one_piece_or_in_two(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="ended at 100 of"):
        brought(tmp_path, CONTENT[:100])
    brought(tmp_path, CONTENT[100:], offset=100)
    assert [path.name for path in tmp_path.iterdir()] == [SHA]
    assert (tmp_path / SHA).read_bytes() == CONTENT


def test_two_runs_that_bring_one_file_do_not_mix(tmp_path: Path) -> None:
    """A fleet may name a board twice; both then begin with the same artifact."""
    part = tmp_path / f"{SHA}.part"
    with part.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(CONTENT[:100])
        other.flush()
        for offset in (0, 100):
            with pytest.raises(AgentError, match="another run is writing") as caught:
                brought(tmp_path, CONTENT[offset:], offset=offset)
            assert caught.value.kind == "again"
        assert part.read_bytes() == CONTENT[:100]
    brought(tmp_path, CONTENT[100:], offset=100)
    assert (tmp_path / SHA).read_bytes() == CONTENT


def test_what_arrives_damaged_is_thrown_away(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="is not the file with the SHA-256"):
        brought(tmp_path, b"x" * len(CONTENT))
    assert list(tmp_path.iterdir()) == []
