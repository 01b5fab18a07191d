"""Platforms that a wheelhouse can be made for, as pip and environment markers (PEP 508) name them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from packaging.tags import Tag

PlatformName = Literal["linux-x86-64", "linux-aarch64", "windows-x86-64"]
PYTHONS: Final = ("3.10", "3.11", "3.12", "3.13")
"""Versions the clinic core is shipped for."""
OLDEST_GLIBC: Final = {"x86_64": 31, "aarch64": 35}
"""glibc 2.31 is Debian 11 and Ubuntu 20.04, 2.35 Ubuntu 22.04 and JetPack 6: OpenVINO's wheels for aarch64 need it.

A wheel that needs a later one is not taken.
"""


@dataclass(frozen=True, kw_only=True)
class WheelPlatform:
    """One platform.

    tags: of wheels that run there, best first. markers: values of environment markers there.
    """

    name: PlatformName
    tags: tuple[str, ...]
    markers: dict[str, str]

    def wheel_tags(self, python: str) -> frozenset[Tag]:
        """Tags (PEP 425) of every wheel that CPython `python`, such as "3.11", installs on this platform."""
        from packaging.tags import compatible_tags, cpython_tags

        major, minor = (int(part) for part in python.split("."))
        interpreter = f"cp{major}{minor}"
        specific = cpython_tags((major, minor), abis=[interpreter], platforms=self.tags)
        return frozenset([*specific, *compatible_tags((major, minor), interpreter=interpreter, platforms=self.tags)])

    def environment(self, python: str) -> dict[str, str]:
        """Environment markers of CPython `python`, such as "3.11", on this platform."""
        return {
            **self.markers, "python_version": python, "python_full_version": f"{python}.0", "implementation_version": f"{python}.0",
            "implementation_name": "cpython", "platform_python_implementation": "CPython", "platform_release": "", "platform_version": "",
        }  # fmt: skip


def _linux(name: PlatformName, machine: str) -> WheelPlatform:
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(OLDEST_GLIBC[machine], 16, -1)]
    old = {"x86_64": ["manylinux2014", "manylinux2010", "manylinux1"], "aarch64": ["manylinux2014"]}[machine]
    markers = {"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux", "platform_machine": machine}
    return WheelPlatform(name=name, tags=(*tags, *(f"{tag}_{machine}" for tag in old)), markers=markers)


PLATFORMS: Final[dict[PlatformName, WheelPlatform]] = {
    platform.name: platform
    for platform in (
        _linux("linux-x86-64", "x86_64"),
        _linux("linux-aarch64", "aarch64"),
        WheelPlatform(
            name="windows-x86-64", tags=("win_amd64",),
            markers={"os_name": "nt", "sys_platform": "win32", "platform_system": "Windows", "platform_machine": "AMD64"},
        ),
    )
}  # fmt: skip
