"""What docs/bundle-trust.md tells an IT department to type gives the same answer as `edge-latup verify`, with none of our code."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from bundles import Member, added, changed, place, signing_key, without
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "bundle-trust.md"
ALTERATIONS = {
    "none": lambda members: members,
    "altered": changed("segment", lambda content: content + b"#"),
    "manifest altered": changed("manifest.json", lambda content: content.replace(b"1.2.0", b"1.2.1")),
    "removed": without("empty"),
    "added": added("json.py"),
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_the_commands_by_hand(good: list[Member], tmp_path: Path, name: str) -> None:
    if missing := [tool for tool in ("bash", "openssl", "sha256sum", "diff") if shutil.which(tool) is None]:
        pytest.skip(f"{missing[0]} is not on PATH")
    (script,) = re.findall(r"```bash\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    folder = place(ALTERATIONS[name](good), tmp_path / "bundle")
    pem = signing_key().private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(pem)
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin", "KEY": str(tmp_path / "key.pem"), "TMPDIR": str(tmp_path)}
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (name == "none"), done.stdout + done.stderr
    assert "Signature Verified Successfully" in done.stdout or name == "manifest altered"
