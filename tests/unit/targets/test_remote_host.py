"""Hosts as typed and as written in a fleet file; what is refused names file and key, and never repeats a password."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_latup.errors import InputError, RemoteError, SpecError
from edge_latup.targets.remote_host import load_fleet, parse_host
from edge_latup.targets.remote_session import RemoteSession
from edge_latup.targets.ssh import Reply, python_call


@pytest.mark.parametrize(
    ("text", "user", "address", "port"),
    [
        ("board", None, "board", None),
        ("me@board", "me", "board", None),
        ("me@10.0.0.7:2222", "me", "10.0.0.7", 2222),
        ("me@[fe80::1]:22", "me", "fe80::1", 22),
    ],
)
def test_hosts_as_typed(text: str, user: str | None, address: str, port: int | None) -> None:
    host = parse_host(text)
    assert (host.user, host.address, host.port) == (user, address, port)


@pytest.mark.parametrize("text", ["", "me@", "-oProxyCommand=x", "me@board:0", "me@board:99999", "a b", "me@board:22:22"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_host(text)


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(InputError) as caught:
        parse_host("me:hunter2@board")
    assert "hunter2" not in caught.value.message + caught.value.hint


def test_a_fleet(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(
        '[[host]]\nname = "orin"\naddress = "10.0.0.7"\nidentity = "keys/orin"\n'
        '[[host]]\nname = "nano"\naddress = "nano"\npython = "~/v/bin/python"\n'
    )
    orin, nano = load_fleet(path).host
    assert (orin.name, orin.identity, orin.python) == ("orin", tmp_path / "keys" / "orin", "python3")
    assert (nano.name, nano.identity, nano.python) == ("nano", None, "~/v/bin/python")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[host]", "is not TOML"),
        ("", "host: Field required"),
        ('[[host]]\nname = "a"\naddress = "b"\npassword = "x"', "unknown key 'password'"),
        ('[[host]]\nname = "../a"\naddress = "b"', "host.0.name"),
        ('[[host]]\nname = "a"\naddress = "-oProxyCommand=x"', "host.0.address"),
        ('[[host]]\nname = "a"\naddress = "b"\n[[host]]\nname = "a"\naddress = "c"', "two hosts a"),
    ],
)
def test_broken_fleets_name_file_and_key(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    with pytest.raises(SpecError, match=told) as caught:
        load_fleet(path)
    assert str(path) in caught.value.message
    with pytest.raises(SpecError, match="cannot be read"):
        load_fleet(tmp_path / "none.toml")


def test_a_home_is_expanded_there_and_nothing_else_is() -> None:
    assert python_call("~/my env/python", "", ["a b"])[0].startswith("\"$HOME\"/'my env/python' -I -c ")
    assert python_call("$(reboot)", "", [])[0].startswith("'$(reboot)' -I -c ")


def test_an_old_python_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("asyncssh")
    told = b'{"python": "3.8.10", "executable": "/usr/bin/python3", "machine": "aarch64", "cores": 6, "free_disk": 1, "free_memory": null, '
    told += b'"cache": "/c", "modules": {}}'
    session = RemoteSession(parse_host("board"), lambda line: None)
    monkeypatch.setattr(session, "_python", lambda *_: Reply(code=0, out=told, err=""))
    with pytest.raises(RemoteError, match="board has Python 3.8.10; 3.10 or newer is needed") as caught:
        session._probe()
    assert "--python" in caught.value.hint
