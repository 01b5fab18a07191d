"""Keys: the private half is its owner's only, files appear whole or not at all, and OpenSSL reads them."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from bundles import CREATED, Member, place, signing_key, write_key
from command import Command
from hypothesis import given
from hypothesis import strategies as st

from edge_latup.bundle.keygen import make_keys
from edge_latup.bundle.keys import PRIVATE_NAME, PUBLIC_NAME, PUBLIC_PEM_NAME, is_signed_by, read_public_key, read_signing_key
from edge_latup.errors import EdgeLatupError, InputError

SECRET = "correct horse battery staple"
# RFC 8032, section 7.1, TEST 2.
PUBLIC = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
SIGNED = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"


def openssl() -> str:
    found = shutil.which("openssl")
    if found is None:
        pytest.skip("openssl is not on PATH")
    return found


def test_the_signature_is_that_of_the_standard() -> None:
    facts = signing_key().public.model_copy(update={"public_key": PUBLIC})
    assert is_signed_by(facts, bytes.fromhex(SIGNED), b"\x72")
    assert not is_signed_by(facts, bytes.fromhex(SIGNED), b"\x73")
    assert not is_signed_by(facts, b"", b"\x72")
    # S + L has the same value modulo the group's order: the standard (section 5.1.7) refuses it, so that no second signature exists.
    order = 2**252 + 27742317777372353535851937790883648493
    again = int.from_bytes(bytes.fromhex(SIGNED)[32:], "little") + order
    assert not is_signed_by(facts, bytes.fromhex(SIGNED)[:32] + again.to_bytes(32, "little"), b"\x72")


def test_keygen_writes_three_files_and_the_private_one_is_its_owners(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text(f"{SECRET}\n")
    out = tmp_path / "new" / "keys"
    arguments = ("package", "keygen", "--out", out, "--owner", "Imaging <a@b.example>", "--passphrase-file", tmp_path / "passphrase")
    old = os.umask(0)
    try:
        done = cli("--json", *arguments, "--expires", "2099-12-31")
    finally:
        os.umask(old)
    assert done.code == 0, done.err
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {
        PRIVATE_NAME: 0o600, PUBLIC_NAME: 0o644, PUBLIC_PEM_NAME: 0o644,
    }  # fmt: skip
    public = read_public_key(out / PUBLIC_NAME)
    assert (public.owner, public.expires) == ("Imaging <a@b.example>", datetime.date(2099, 12, 31))
    assert done.data["key"]["key_id"] == public.key_id
    assert (out / PRIVATE_NAME).read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    key = read_signing_key(out / PRIVATE_NAME, public, SECRET.encode())
    assert is_signed_by(public, key.private.sign(b"x"), b"x")
    assert SECRET not in done.out + done.err + repr(key) + "".join(path.read_text() for path in out.iterdir())
    # Never overwritten.
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    again = cli(*arguments)
    assert again.code == 2
    assert "signing-key.pem exists" in again.err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_openssl_reads_the_keys_and_checks_the_signature(tmp_path: Path, key: object, good: list[Member]) -> None:
    """An implementation that shares no code with ours, as docs/bundle-trust.md tells an IT department to use it."""
    public = make_keys(tmp_path / "keys", "me", SECRET.encode(), created=CREATED)
    private = read_signing_key(tmp_path / "keys" / PRIVATE_NAME, public, SECRET.encode()).private
    content = good[0].content
    (tmp_path / "content").write_bytes(content)
    (tmp_path / "signature").write_bytes(private.sign(content))
    check = [
        openssl(), "pkeyutl", "-verify", "-pubin", "-inkey", tmp_path / "keys" / PUBLIC_PEM_NAME, "-rawin",
        "-in", tmp_path / "content", "-sigfile", tmp_path / "signature",
    ]  # fmt: skip
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0
    (tmp_path / "content").write_bytes(content + b"\n")
    assert subprocess.run(check, capture_output=True, check=False).returncode != 0
    for passphrase, code in ((SECRET, 0), ("wrong", 1)):
        read = [openssl(), "pkey", "-in", tmp_path / "keys" / PRIVATE_NAME, "-noout", "-passin", f"pass:{passphrase}"]
        assert subprocess.run(read, capture_output=True, check=False).returncode == code


def test_without_a_terminal_the_passphrase_is_asked_for_by_option(cli: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", open(os.devnull, encoding="utf-8"))  # noqa: SIM115, PTH123
    done = cli("package", "keygen", "--out", tmp_path / "keys", "--owner", "me")
    assert done.code == 2
    assert "--passphrase-file FILE, or --no-passphrase" in done.err
    assert not (tmp_path / "keys").exists()
    done = cli("package", "keygen", "--out", tmp_path / "keys", "--owner", "me", "--no-passphrase")
    assert done.code == 0
    assert "is not encrypted" in done.err
    both = cli("package", "keygen", "--out", tmp_path / "k", "--owner", "me", "--no-passphrase", "--passphrase-file", tmp_path / "p")
    assert both.code == 2
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize(
    ("content", "options", "told"),
    [
        (b"", (), "does not hold one line"), (b"\n", (), "does not hold one line"), (b"a\nb\n", (), "does not hold one line"),
        (b"x" * 1024, (), "longer than 1023"), (b"x" * 20000, (), "too large"), (None, (), "cannot be read"),
        (b"good", ("--expires", "2000-01-01"), "would expire on 2000-01-01"), (b"good", ("--owner", "na\u00efve"), "printable ASCII"),
        (b"good", ("--owner", ""), "printable ASCII"), (b"good", ("--owner", "x" * 201), "printable ASCII"),
    ],
)  # fmt: skip
def test_what_cannot_make_a_key_makes_none(
    cli: Command, tmp_path: Path, content: bytes | None, options: tuple[str, ...], told: str
) -> None:
    if content is not None:
        (tmp_path / "passphrase").write_bytes(content)
    done = cli("package", "keygen", "--out", tmp_path / "k", "--owner", "me", "--passphrase-file", tmp_path / "passphrase", *options)
    assert done.code == 2
    assert told in done.err
    assert not (tmp_path / "k").exists()


def test_all_files_or_none(tmp_path: Path) -> None:
    for blocked in (PUBLIC_NAME, PUBLIC_PEM_NAME):
        folder = tmp_path / blocked
        folder.mkdir()
        (folder / blocked).symlink_to("nowhere")
        with pytest.raises(InputError, match="exists, and a key is never overwritten"):
            make_keys(folder, "me", None, created=CREATED)
        assert [path.name for path in folder.iterdir()] == [blocked]


def test_a_late_failure_takes_back_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.link, []

    def link(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(InputError, match="No space left on device"):
        make_keys(tmp_path, "me", None, created=CREATED)
    assert list(tmp_path.iterdir()) == []


def test_a_private_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    public = make_keys(tmp_path, "me", None, created=CREATED)
    (tmp_path / PRIVATE_NAME).chmod(0o640)
    with pytest.raises(InputError, match="can be read by others"):
        read_signing_key(tmp_path / PRIVATE_NAME, public, None)


def test_the_wrong_passphrase_or_half_is_told_apart(tmp_path: Path) -> None:
    locked = make_keys(tmp_path / "locked", "me", b"secret", created=CREATED)
    plain = make_keys(tmp_path / "plain", "me", None, created=CREATED)
    cases = [
        ("locked", locked, b"wrong", "passphrase is wrong"), ("locked", locked, None, "needs its passphrase"),
        ("plain", plain, b"secret", "has no passphrase"), ("plain", locked, None, "is not the private half"),
    ]  # fmt: skip
    for folder, public, passphrase, told in cases:
        with pytest.raises(InputError, match=told) as caught:
            read_signing_key(tmp_path / folder / PRIVATE_NAME, public, passphrase)
        assert "secret" not in caught.value.message
    (tmp_path / "plain" / PRIVATE_NAME).write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(InputError, match="is no private key"):
        read_signing_key(tmp_path / "plain" / PRIVATE_NAME, plain, None)


@pytest.mark.parametrize(("field", "value"), [("owner", "Someone else"), ("expires", "2999-01-01"), ("minimum_schema", 2)])
def test_the_key_id_vouches_for_every_field(tmp_path: Path, field: str, value: object) -> None:
    path = write_key(tmp_path, signing_key(expires=datetime.date(2027, 1, 1)).public)
    data = json.loads(path.read_bytes())
    assert data[field] != value
    path.write_text(json.dumps({**data, field: value}))
    with pytest.raises(InputError, match="key_id is not that of the other fields"):
        read_public_key(path)


@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_key_file_is_bad_input_or_the_same_key(tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int, byte: int) -> None:
    public = signing_key().public
    path = write_key(tmp_path_factory.getbasetemp(), public)
    content = bytearray(path.read_bytes())
    content[at % len(content)] = byte
    for written in (bytes(content), junk):
        path.write_bytes(written)
        try:
            assert read_public_key(path) == public
        except EdgeLatupError as error:
            assert error.exit_code == 2  # noqa: PT017


def test_a_missing_key_or_bundle_is_bad_input(cli: Command, good: list[Member], tmp_path: Path) -> None:
    bundle, path = place(good, tmp_path / "bundle"), write_key(tmp_path, signing_key().public)
    assert cli("verify", bundle, "--key", tmp_path / "none").code == 2
    assert cli("verify", tmp_path / "none", "--key", path).code == 2
    assert cli("verify", bundle, "--key", path).code == 0
    done = cli("verify", bundle, "--key", path, "--json")
    assert (done.code, done.data["verified"], done.data["manifest"]["version"]) == (0, True, "1.2.0")
    assert done.data["key"]["owner"] == "Imaging group"


def test_a_verified_copy_is_made_to_install_from(cli: Command, good: list[Member], tmp_path: Path) -> None:
    bundle, path = place(good, tmp_path / "bundle"), write_key(tmp_path, signing_key().public)
    done = cli("verify", bundle, "--key", path, "--unpack", tmp_path / "copy")
    assert done.code == 0
    assert f"unpacked: {tmp_path / 'copy'}" in done.out
    assert cli("verify", tmp_path / "copy", "--key", path).code == 0
    assert cli("verify", bundle, "--key", path, "--unpack", tmp_path / "copy").code == 2, "nothing is overwritten"
    assert cli("verify", bundle, "--key", write_key(tmp_path, signing_key(2).public), "--unpack", tmp_path / "none").code == 5
    assert not (tmp_path / "none").exists()


def on_a_terminal(*arguments: object, typed: int) -> tuple[int, bytes]:
    """(exit code, what was shown) of a command on a real pseudo-terminal, where an echo would be seen; the secret is typed so often."""
    import pty
    import sys

    code = "from edge_latup.cli import main; main()"
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-P", "-c", code, *map(str, arguments)])
    shown = b""
    for _ in range(typed):
        asked = b""
        while not asked.endswith(b": "):
            asked += os.read(terminal, 1000)
        shown += asked
        os.write(terminal, SECRET.encode() + b"\n")
    try:
        while part := os.read(terminal, 1000):
            shown += part
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown


def test_on_a_terminal_the_passphrase_is_asked_for_twice_and_not_shown(tmp_path: Path) -> None:
    code, shown = on_a_terminal("package", "keygen", "--out", tmp_path / "keys", "--owner", "me", typed=2)
    assert code == 0, shown
    assert SECRET.encode() not in shown
    assert read_signing_key(tmp_path / "keys" / PRIVATE_NAME, read_public_key(tmp_path / "keys" / PUBLIC_NAME), SECRET.encode())


def test_building_a_bundle_asks_for_the_passphrase_of_an_encrypted_key(cli: Command, tmp_path: Path) -> None:
    make_keys(tmp_path / "keys", "me", SECRET.encode(), created=CREATED)
    build = ("package", "build", tmp_path / "none", "--target", "x86-64-avx2", "--key", tmp_path / "keys", "--out", tmp_path / "bundle")
    code, shown = on_a_terminal(*build, typed=1)
    assert code == 2, "the key was opened; what is missing is the artifact"
    assert b"artifact" in shown
    assert SECRET.encode() not in shown
    done = cli(*build)
    assert done.code == 2
    assert "add --passphrase-file FILE" in done.err
    assert "--no-passphrase" not in done.err
    assert not (tmp_path / "bundle").exists()
