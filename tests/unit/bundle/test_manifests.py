"""Manifests that are signed with the right key and still refused, and what a manifest may say."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from bundles import CREATED, FORMS, TODAY, Member, signed, signing_key, write_bundle, write_form
from hypothesis import given
from hypothesis import strategies as st

from edge_latup.bundle.canonical import canonical_bytes, from_canonical
from edge_latup.bundle.keys import SigningKey
from edge_latup.bundle.manifest import BundleManifest, creation_date
from edge_latup.bundle.names import collision_in, fault_of
from edge_latup.bundle.verify import verify
from edge_latup.errors import InputError, VerificationError

Change = Callable[[dict[str, Any]], object]


def _text(data: Any) -> bytes:
    return (json.dumps(data, indent=2, sort_keys=True) + "\n").encode()


def _edited(change: Change) -> Callable[[bytes], bytes]:
    def edit(content: bytes) -> bytes:
        data = json.loads(content)
        change(data)
        return _text(data)

    return edit


def _set(key: str, value: Any) -> Callable[[bytes], bytes]:
    return _edited(lambda data: data.update({key: value}))


def _path(value: str, at: int = 0) -> Callable[[bytes], bytes]:
    def change(data: dict[str, Any]) -> None:
        data["files"][at]["path"] = value
        data["files"].sort(key=lambda file: file["path"])

    return _edited(change)


def _file(key: str, value: Any) -> Callable[[bytes], bytes]:
    return _edited(lambda data: data["files"][0].update({key: value}))


def _raw(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(old, new, 1)


MANIFESTS: Final[dict[str, tuple[Callable[[bytes], bytes], str]]] = {
    "downgraded schema": (_set("schema_version", 0), "downgraded schema 0"),
    "negative schema": (_set("schema_version", -1), "downgraded schema -1"),
    "future schema": (_set("schema_version", 2), "has schema 2, and this edge-latup knows 1"),
    "future schema with other keys": (lambda _: _text({"schema_version": 9, "new": True}), "has schema 9"),
    "schema in words": (_set("schema_version", "1"), "gives no schema_version"),
    "schema true": (_set("schema_version", True), "gives no schema_version"),
    "schema 1.0": (_raw(b'"schema_version": 1', b'"schema_version": 1.0'), "gives no schema_version"),
    "no schema": (_edited(lambda data: data.pop("schema_version")), "gives no schema_version"),
    "another kind": (_set("kind", "edge-latup public key"), "kind"),
    "another key": (_set("key_id", "0" * 32), "asks for the key 000"),
    "unknown key": (_set("run", "install.sh"), "unknown key 'run'"),
    "no files": (_set("files", []), "files"),
    "key twice": (_raw(b'"kind"', b'"name": "x",\n  "kind"'), "canonical form"),
    "file's key twice": (_raw(b'"executable"', b'"path": "x",\n      "executable"'), "canonical form"),
    "escaped letter": (_raw(b'"latup-demo"', b'"latup-dem\\u006f"'), "canonical form"),
    "other spacing": (lambda content: json.dumps(json.loads(content), sort_keys=True).encode(), "canonical form"),
    "other line ends": (_raw(b"\n", b"\r\n"), "canonical form"),
    "other order of keys": (lambda content: (json.dumps(json.loads(content), indent=2)[::1] + " \n").encode(), "canonical form"),
    "a mark before": (lambda content: b"\xef\xbb\xbf" + content, "gives no schema_version"),
    "something behind": (lambda content: content + b"{}", "gives no schema_version"),
    "not UTF-8": (_raw(b"latup-demo", b"latup\xff\xfe"), "gives no schema_version"),
    "lone surrogate": (_raw(b"latup-demo", b"\\ud800"), "gives no schema_version"),
    "not JSON": (lambda _: b"name = 'x'", "gives no schema_version"),
    "a list": (lambda _: b"[1]\n", "gives no schema_version"),
    "nested without end": (lambda _: b'{"schema_version":' * 200_000, "gives no schema_version"),
    "nested in a value": (_raw(b'"previous": null', b'"previous": ' + b"[" * 100_000 + b"]" * 100_000), "manifest.json"),
    "NaN": (_raw(b'"previous": null', b'"previous": NaN'), "manifest.json"),
    "infinite size": (_file("size", 1), "replaced below"),
    "huge integer": (_raw(b'"previous": null', b'"previous": ' + b"9" * 100_000), "manifest.json"),
    "size in words": (_file("size", "920"), "canonical form"),
    "size as float": (_file("size", 920.0), "canonical form"),
    "negative size": (_file("size", -1), "files.0.size"),
    "size of an exabyte": (_file("size", 1 << 60), "files.0.size"),
    "size without end": (_file("size", 10**40), "files.0.size"),
    "hash in capitals": (_file("sha256", "A" * 64), "files.0.sha256"),
    "hash with a newline": (_file("sha256", "a" * 64 + "\n"), "files.0.sha256"),
    "hash too short": (_file("sha256", "a" * 63), "files.0.sha256"),
    "unknown role": (_file("role", "rootkit"), "files.0.role"),
    "executable in words": (_file("executable", "no"), "canonical form"),
    "parent folder": (_path("../README.txt"), "'..' part"),
    "parent folder inside": (_path("a/../../b"), "'..' part"),
    "this folder": (_path("./b"), "'.' or '..'"),
    "absolute": (_path("/etc/passwd"), "is absolute"),
    "empty path": (_path(""), "is empty"),
    "empty part": (_path("a//b"), "empty"),
    "folder": (_path("a/"), "empty"),
    "drive": (_path("C:/x"), "':'"),
    "stream": (_path("x.txt:evil"), "':'"),
    "backslash": (_path("a\\b"), "printed differently"),
    "NUL": (_path("a\0b"), "not printable ASCII"),
    "newline": (_path("a\nb"), "not printable ASCII"),
    "escape": (_path("a\x1b[2J"), "not printable ASCII"),
    "composed accent": (_path("r\u00e9sum\u00e9"), "not printable ASCII"),
    "right-to-left mark": (_path("a\u202egpj.exe"), "not printable ASCII"),
    "Windows device": (_path("lib/NUL"), "device"),
    "Windows device with ending": (_path("aux.txt"), "device"),
    "Windows device with spaces": (_path("com1 .txt"), "device"),
    "wildcard": (_path("a*"), "'*'"),
    "trailing dot": (_path("a./b"), "space or dot"),
    "trailing space": (_path("b "), "space or dot"),
    "leading space": (_path(" b"), "space"),
    "path without end": (_path("x" * 201), "longer than 200"),
    "the manifest itself": (_path("manifest.json"), "one name on some systems"),
    "the signature in capitals": (_path("MANIFEST.SIG"), "one name on some systems"),
    "same name in capitals": (_path("INSTALL.SH"), "one name on some systems"),
    "same folder in capitals": (_path("Artifact/x"), "one name on some systems"),
    "file and folder": (_path("artifact"), "one name on some systems"),
    "same path twice": (_edited(lambda data: data["files"].insert(0, data["files"][0])), "named twice"),
    "not sorted": (_edited(lambda data: data["files"].reverse()), "not sorted"),
    "label with a slash": (_set("name", "../x"), "name"),
    "label with a newline": (_set("version", "1\n"), "version"),
    "artifact without files": (
        _set("artifacts", [{"folder": "x", "digest": "a" * 64, "format": "onnx", "runtimes": ["openvino"], "precision": "fp32"}]),
        "has no file",
    ),
    "date as a number": (_set("created", 0), "canonical form"),
    "date that is none": (_set("created", "2026-02-30"), "created"),
}  # fmt: skip
MANIFESTS["infinite size"] = (_raw(b'"size": 920', b'"size": 1e999'), "files.0.size")
MANIFESTS["backslash"] = (_path("a\\b"), "which Windows allows in no name")


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_signature_does_not_make_a_manifest_good(
    good: list[Member], key: SigningKey, refused: Callable[[Path], str], tmp_path: Path, name: str
) -> None:
    change, why = MANIFESTS[name]
    content = change(good[0].content)
    assert content != good[0].content
    message = refused(write_form("zip", [*signed(content, key), *good[2:]], tmp_path))
    assert message.startswith("manifest.json ")
    assert why in message
    assert len(message) < 500


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("facts", "changes", "day", "why"),
    [
        ({"expires": datetime.date(2026, 11, 20)}, {}, TODAY, "manifest.sig is by a key that expired on 2026-11-20"),
        ({}, {"expires": datetime.date(2026, 11, 20)}, TODAY, "manifest.json expired on 2026-11-20"),
        ({"expires": TODAY}, {"expires": TODAY}, TODAY, ""),
        ({"expires": TODAY}, {}, TODAY + datetime.timedelta(1), "manifest.sig is by a key that expired"),
        ({"minimum_schema": 2}, {}, TODAY, "manifest.json has the downgraded schema 1; 2 is the oldest"),
    ],
)
def test_dates_and_the_oldest_schema_hold(
    tmp_path: Path, form: str, facts: dict[str, Any], changes: dict[str, Any], day: datetime.date, why: str
) -> None:
    from bundles import members_of

    key = signing_key(3, **facts)
    write_bundle(tmp_path / "made", key, **changes)
    bundle = write_form(form, members_of(tmp_path / "made"), tmp_path)
    if not why:
        assert verify(bundle, key.public, today=day).manifest.created == CREATED
        return
    with pytest.raises(VerificationError, match=why):
        verify(bundle, key.public, today=day)


def test_what_was_written_is_read_back(good: list[Member]) -> None:
    manifest = from_canonical(BundleManifest, good[0].content, "manifest.json")
    assert canonical_bytes(manifest) == good[0].content
    assert json.loads(good[0].content)["files"][0]["path"] == "README.txt"


PART = st.text(st.sampled_from("abAB.-_ /\\:\0\u00e9cCoOnN19"), max_size=9)


@given(PART)
def test_an_allowed_path_stays_inside_and_means_the_same_everywhere(path: str) -> None:
    from pathlib import PurePosixPath, PureWindowsPath

    if fault_of(path):
        return
    windows, posix = PureWindowsPath(path), PurePosixPath(path)
    assert not windows.is_absolute()
    assert not windows.drive
    assert windows.as_posix() == posix.as_posix() == path
    assert ".." not in posix.parts
    assert not getattr(windows, "is_reserved", lambda: False)()


@given(st.lists(PART.filter(lambda path: not fault_of(path)), max_size=6))
def test_paths_without_a_collision_can_all_be_written_where_case_does_not_count(paths: list[str]) -> None:
    """Against a model of such a file system: a dict of lower-case names, each a file or a folder of one spelling."""
    taken: dict[str, str] = {}  # a folder ends with a slash
    clash = False
    for path in paths:
        above = ["/".join(path.split("/")[:index]) + "/" for index in range(1, path.count("/") + 1)]
        clash |= path.lower() in taken
        for name in (*above, path):
            key = name.rstrip("/").lower()
            clash |= taken.setdefault(key, name) != name
    assert (collision_in(paths) is not None) == clash


def test_the_date_of_creation_can_be_set() -> None:
    assert creation_date({"SOURCE_DATE_EPOCH": "1793491200"}) == datetime.date(2026, 11, 1)
    assert creation_date({}) == datetime.datetime.now(datetime.timezone.utc).date()
    for text in ("", "now", "1e9", "9" * 30):
        with pytest.raises(InputError, match="SOURCE_DATE_EPOCH"):
            creation_date({"SOURCE_DATE_EPOCH": text})
