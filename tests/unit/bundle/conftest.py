"""One bundle, its keys, and the command line's answer to a falsified one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from bundles import MARK, Member, members_of, signing_key, watched, write_bundle, write_key
from command import Command

from edge_latup.bundle.keys import SigningKey

Refused = Callable[[Path], str]


@pytest.fixture(scope="session")
def key() -> SigningKey:
    return signing_key()


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory, key: SigningKey) -> list[Member]:
    """The files of the bundle as it was signed."""
    folder = tmp_path_factory.mktemp("good") / "bundle"
    write_bundle(folder, key)
    return members_of(folder)


@pytest.fixture
def refused(cli: Command, key: SigningKey, tmp_path_factory: pytest.TempPathFactory) -> Refused:
    """Verify by the command line, which must refuse: exit code 5, one error, a remedy; nothing run, nothing written. Its message."""
    public = write_key(tmp_path_factory.mktemp("key"), key.public)

    def check(bundle: Path) -> str:
        mark = Path(tempfile.gettempdir(), MARK)
        mark.unlink(missing_ok=True)
        with watched(bundle) as deeds:
            done = cli("verify", bundle, "--key", public)
        assert (done.code, done.out) == (5, ""), done
        assert deeds.ran == []
        assert deeds.wrote == []
        assert not mark.exists()
        error, hint = done.err.splitlines()
        assert error.isprintable()
        assert hint.startswith("hint: ")
        return error.removeprefix("error: ")

    return check
