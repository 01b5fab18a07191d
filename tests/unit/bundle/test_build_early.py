"""What a bundle's manifest or key would refuse at the end is refused before its minutes of work."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundles import CREATED, signing_key
from command import Command
from support import tree

from edge_latup.bundle.build import Plan, build_bundle
from edge_latup.errors import InputError

PLAN = Plan(artifacts=(), name="b", version="1", target="x86-64-avx2", platform="linux-x86-64", pythons=("3.11",), created=CREATED)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "Brain tumour"}, "the name 'Brain tumour' cannot be part of a file's name"),
        ({"version": "1.2 rc1"}, "the version '1.2 rc1' cannot"),
        ({"target": "./host.toml"}, "the target './host.toml' cannot"),
        ({"expires": CREATED - datetime.timedelta(days=1)}, "would expire on .*, before it is made"),
        ({"created": datetime.date(1999, 1, 1)}, "1999-01-01 is outside the key's dates"),
    ],
)
def test_it_is_refused_at_once(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        build_bundle(replace(PLAN, **changes), signing_key(), tmp_path / "out")
    assert not tree(tmp_path)


def test_an_archive_in_the_way_and_a_time_that_is_none_are_refused_at_once(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "out.tar.zst").write_text("mine")
    before = tree(tmp_path)
    command = ("package", "build", tmp_path / "artifact", "--out", tmp_path / "out", "--key", tmp_path / "keys", "--target", "x86-64-avx2")
    done = cli(*command)
    assert (done.code, f"{tmp_path / 'out.tar.zst'} exists" in done.err) == (2, True), done.err
    done = cli(*command, "--max-latency-ms", "0")
    assert (done.code, "--max-latency-ms 0 is no time" in done.err) == (2, True), done.err
    assert tree(tmp_path) == before
