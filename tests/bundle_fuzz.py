"""Seeded mutations of a bundle, and what must hold for each: refused with the one error, quickly, nothing written elsewhere.

Run by the tests; alone, `python tests/bundle_fuzz.py --cases 10000 --seed 1` says how many there were of each kind (make fuzz-bundle).
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

from bundles import FORMS, MARK, TODAY, Deeds, Member, archive_of, members_of, packed, signed, signing_key, tar_of, watched, write_bundle

from edge_latup.bundle.keys import SigningKey
from edge_latup.bundle.unpack import unpack_verified
from edge_latup.errors import VerificationError

SECONDS_A_CASE: Final = 5.0
"""Far above what a case takes; a case that takes longer hangs."""
Mutation = Callable[[random.Random, bytes], bytes]
INTERESTING: Final = (
    b"\0", b"\xff", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"../", b"/", b"\\", b"C:", b"\n", b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06",
    b"PK\x06\x06", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b"ustar\0", b"x", b"g", b"L", b"2", b"manifest.json", b"NaN", b"1e999",
    b"{}", b"[[[[", b'"', b"\\u0000", b"\xc3\xa9", b"\xed\xa0\x80", b"7777777777777",
)  # fmt: skip


def _flip(random: random.Random, content: bytes) -> bytes:
    at = random.randrange(len(content))
    return content[:at] + bytes([content[at] ^ (1 << random.randrange(8))]) + content[at + 1 :]


def _byte(random: random.Random, content: bytes) -> bytes:
    at = random.randrange(len(content))
    return content[:at] + bytes([random.randrange(256)]) + content[at + 1 :]


def _cut(random: random.Random, content: bytes) -> bytes:
    return content[: random.randrange(len(content))]


def _remove(random: random.Random, content: bytes) -> bytes:
    at = random.randrange(len(content))
    return content[:at] + content[at + random.choice((1, 2, 4, 30, 512)) :]


def _insert(random: random.Random, content: bytes) -> bytes:
    at = random.randrange(len(content) + 1)
    return content[:at] + random.choice(INTERESTING) + content[at:]


def _overwrite(random: random.Random, content: bytes) -> bytes:
    at, word = random.randrange(len(content)), random.choice(INTERESTING)
    return content[:at] + word + content[at + len(word) :]


def _number(random: random.Random, content: bytes) -> bytes:
    at = random.randrange(len(content))
    value = struct.pack(random.choice(("<I", ">I", "<H", "<Q")), random.choice((0, 1, 2**15, 2**16 - 1)))
    return content[:at] + value + content[at + len(value) :]


def _repeat(random: random.Random, content: bytes) -> bytes:
    first = random.randrange(len(content))
    part = content[first : first + random.choice((1, 8, 46, 512, 1536))]
    at = random.randrange(len(content) + 1)
    return content[:at] + part * random.choice((1, 1, 2, 50)) + content[at:]


def _exchange(random: random.Random, content: bytes) -> bytes:
    size = random.choice((1, 8, 46, 512))
    first, second = sorted(random.randrange(len(content)) for _ in range(2))
    one, two = content[first : first + size], content[second : second + size]
    return content[:first] + two + content[first + size : second] + one + content[second + size :]


def _junk(random: random.Random, content: bytes) -> bytes:
    return content[: random.choice((0, 4, 6, 30, 600))] + random.randbytes(random.randrange(400))


MUTATIONS: Final[Sequence[Mutation]] = (_flip, _flip, _byte, _cut, _remove, _insert, _overwrite, _number, _repeat, _exchange, _junk)


def mutate(random: random.Random, content: bytes) -> bytes:
    """One mutation, sometimes a few; empty content grows."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        content = random.choice(MUTATIONS)(random, content) if content else _insert(random, content)
    return content


@dataclass(frozen=True)
class Bundle:
    """What is mutated: made once, as packing at the level of real bundles takes longer than refusing."""

    members: list[Member]
    key: SigningKey
    archives: dict[str, bytes]
    tar: bytes


def _written(form: str, members: list[Member]) -> bytes:
    return packed(tar_of(members)) if form == "tar.zst" else archive_of(form, members)


def _of_member(nth: int) -> Callable[[random.Random, str, Bundle], bytes]:
    def make(random: random.Random, form: str, good: Bundle) -> bytes:
        members = list(good.members)
        members[nth] = Member(members[nth].path, mutate(random, members[nth].content), members[nth].executable)
        return _written(form, members)

    return make


def _signed_manifest(random: random.Random, form: str, good: Bundle) -> bytes:
    """Mutated, then signed with the right key: what only the rules for manifests, and the files themselves, can refuse."""
    return _written(form, [*signed(mutate(random, good.members[0].content), good.key), *good.members[2:]])


def _archive(random: random.Random, form: str, good: Bundle) -> bytes:
    return mutate(random, good.archives[form])


def _inner_tar(random: random.Random, form: str, good: Bundle) -> bytes:
    """Beneath the compression, and its checksum."""
    return packed(mutate(random, good.tar))


def _payload(random: random.Random, form: str, good: Bundle) -> bytes:
    return _of_member(random.randrange(2, len(good.members)))(random, form, good)


TARGETS: Final = {
    "manifest": _of_member(0), "signature": _of_member(1), "signed manifest": _signed_manifest, "file": _payload, "archive": _archive,
    "tar": _inner_tar,
}  # fmt: skip


@dataclass
class Outcome:
    """What came of all cases."""

    cases: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    same: Counter[str] = field(default_factory=Counter)
    """Accepted, with every byte and mode of the content exactly as signed: spare bits of a compressed stream, or no change at all."""
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0


class HangError(BaseException):
    """Raised by the alarm; no `except Exception` swallows it."""


def _alarm(number: int, frame: FrameType | None) -> None:
    raise HangError


def fuzz(folder: Path, cases: int, seed: int) -> Outcome:
    """Mutate, verify and unpack; `folder` is new and empty."""
    key, outcome = signing_key(), Outcome()
    write_bundle(folder / "made", key)
    members = members_of(folder / "made")
    archives = {form: archive_of(form, members) for form in FORMS[1:]}
    good = Bundle(members=members, key=key, archives=archives, tar=tar_of(members))
    expected = {member.path: (member.content, member.executable) for member in members}
    old = signal.signal(signal.SIGALRM, _alarm)
    mark = Path(tempfile.gettempdir(), MARK)
    mark.unlink(missing_ok=True)
    try:
        for number in range(cases):
            source = random.Random(f"{seed}-{number}")
            target = list(TARGETS)[number % len(TARGETS)]
            form = source.choice(FORMS[1:])
            path = folder / "bundle"
            path.write_bytes(TARGETS[target](source, form, good))
            _one(f"{target}, seed {seed}, case {number}", path, folder / "out", key, expected, outcome)
            outcome.cases[target] += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    if mark.exists():
        outcome.wrong.append("code of a bundle ran")
    return outcome


def _one(
    name: str, path: Path, out: Path, key: SigningKey, expected: dict[str, tuple[bytes, bool]], outcome: Outcome
) -> None:  # fmt: skip
    target, started = name.split(",")[0], time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, SECONDS_A_CASE)
    deeds = Deeds()
    try:
        with watched(path) as deeds:
            unpack_verified(path, key.public, out / "x", today=TODAY)
        if {m.path: (m.content, m.executable) for m in members_of(out / "x")} != expected:
            outcome.wrong.append(f"{name}: accepted something else")
        outcome.same[target] += 1
    except VerificationError as error:
        outcome.refused[target] += 1
        if not (error.hint and error.message.isprintable() and len(error.message) < 1000):
            outcome.wrong.append(f"{name}: {error.message!r}")
    except HangError:
        outcome.wrong.append(f"{name}: took more than {SECONDS_A_CASE} s")
    except Exception as error:  # noqa: BLE001  (this is what is looked for)
        outcome.wrong.append(f"{name}: {type(error).__name__}: {error}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    outcome.slowest = max(outcome.slowest, time.perf_counter() - started)
    if elsewhere := [deed for deed in deeds.wrote if not deed.absolute().is_relative_to(out) or ".." in deed.parts]:
        outcome.wrong.append(f"{name}: wrote {elsewhere[0]}")
    if deeds.ran:
        outcome.wrong.append(f"{name}: ran {deeds.ran[0]}")
    if out.exists():
        shutil.rmtree(out)


def main() -> None:
    """Print the counts; exit with 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        outcome = fuzz(Path(folder), given.cases, given.seed)
    seconds = time.perf_counter() - started
    for target, count in outcome.cases.items():
        sys.stdout.write(f"{target}: {count} cases, {outcome.refused[target]} refused, {outcome.same[target]} the same content\n")
    sys.stdout.write(f"slowest case {outcome.slowest:.2f} s; {seconds:.0f} s in all\n")
    for line in outcome.wrong:
        sys.stdout.write(f"WRONG {line}\n")
    sys.exit(bool(outcome.wrong))


if __name__ == "__main__":
    main()
