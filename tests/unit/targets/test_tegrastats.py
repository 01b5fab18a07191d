"""tegrastats of JetPack 4 to 7: lines in the format that NVIDIA documents, as boards of each generation print it; values are made up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_latup.targets.tegrastats import clocks_pinned, parse_line, power_mode, total_rails

MIB = 1 << 20
CPU4, CPU6, CPU8 = "[24%@1224,15%@1224,off,10%@1224]", "[44%@1421,49%@2031,off,off,25%@1419,8%@1420]", ",".join(["0%@1190"] * 8)
LINES: dict[str, tuple[str, dict[str, Any]]] = {
    "Nano, JetPack 4": (
        f"RAM 1766/3964MB (lfb 197x4MB) SWAP 0/2048MB (cached 0MB) CPU {CPU4} EMC_FREQ 0% GR3D_FREQ 45%@921 APE 25 PLL@21C CPU@25C "
        "PMIC@100C GPU@23.5C AO@33.5C thermal@24.5C POM_5V_IN 2545/2547 POM_5V_GPU 40/0 POM_5V_CPU 549/529",
        {"ram": (1766, 3964), "load": 45, "clock": 921, "hot": ("AO", 33.5), "watts": 2.545, "total": ("POM_5V_IN",)},
    ),
    "TX2, JetPack 4": (
        f"RAM 3276/7859MB (lfb 5x4MB) SWAP 1626/12122MB (cached 181MB) CPU {CPU6} EMC_FREQ 1%@1866 GR3D_FREQ 0%@114 APE 150 MTS "
        "fg 1% bg 1% "
        "PLL@42.5C MCPU@42.5C PMIC@100C Tboard@38C GPU@39.5C BCPU@43C thermal@41.3C Tdiode@39.25C VDD_SYS_GPU 182/182 VDD_SYS_SOC 730/730 "
        "VDD_4V0_WIFI 0/0 VDD_IN 5297/5297 VDD_SYS_CPU 1917/1917 VDD_SYS_DDR 1241/1241",
        {"ram": (3276, 7859), "load": 0, "clock": 114, "hot": ("BCPU", 43), "watts": 5.297, "total": ("VDD_IN",)},
    ),
    "AGX Xavier, JetPack 4": (
        f"RAM 14700/15692MB (lfb 3x2MB) SWAP 898/8192MB (cached 23MB) CPU [{CPU8}] EMC_FREQ 0% GR3D_FREQ 7% AO@30C GPU@30.5C Tboard@31C "
        "Tdiode@32C AUX@30.5C CPU@31.5C thermal@30.8C PMIC@100C GPU 463/463 CPU 618/618 SOC 2936/2936 CV 0/0 VDDRQ 309/309 SYS5V 3306/3306",
        {
            "ram": (14700, 15692), "load": 7, "clock": None, "hot": ("Tdiode", 32), "watts": 7.632,
            "total": ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
        },
    ),
    "Xavier NX, JetPack 5": (
        f"11-24-2022 10:15:02 RAM 2711/6854MB (lfb 4x4MB) SWAP 0/3427MB (cached 0MB) CPU {CPU6} EMC_FREQ 3%@1600 GR3D_FREQ 99%@1109 "
        "NVDEC off APE 150 AUX@39C CPU@40.5C thermal@39.6C AO@39C GPU@41C PMIC@50C VDD_IN 9824mW/8012mW VDD_CPU_GPU_CV 5210mW/4100mW "
        "VDD_SOC 1410mW/1390mW",
        {"ram": (2711, 6854), "load": 99, "clock": 1109, "hot": ("PMIC", 50), "watts": 9.824, "total": ("VDD_IN",)},
    ),
    "AGX Orin, JetPack 5": (
        "01-30-2026 18:09:55 RAM 14384/62841MB (lfb 303x4MB) SWAP 0/31420MB (cached 0MB) CPU [2%@729,3%@729] EMC_FREQ 1%@2133 "
        "GR3D_FREQ 61%@[1300,1300] VIC_FREQ 729 CV0@-256C CPU@48.75C Tboard@36C SOC2@45.4C Tdiode@37C SOC0@46C CV1@-256C "
        "GPU@43.6C tj@48.75C "
        "VDD_GPU_SOC 3192mW/3192mW VDD_CPU_CV 1596mW/1596mW VIN_SYS_5V0 5048mW/5048mW NC 0mW/0mW VDDQ_VDD2_1V8AO 605mW/605mW",
        {
            "ram": (14384, 62841), "load": 61, "clock": 1300, "hot": ("CPU", 48.75), "watts": 9.836,
            "total": ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
        },
    ),
    "Orin Nano, JetPack 6": (
        f"03-02-2025 09:00:01 RAM 2981/7620MB (lfb 12x4MB) SWAP 0/3810MB (cached 0MB) CPU {CPU6} GR3D_FREQ 96% cpu@52.4C "
        "soc2@51.3C soc0@51.7C "
        "gpu@53.1C tj@53.1C soc1@52C VDD_IN 11203mW/10850mW VDD_CPU_GPU_CV 5021mW/4800mW VDD_SOC 2471mW/2440mW",
        {"ram": (2981, 7620), "load": 96, "clock": None, "hot": ("gpu", 53.1), "watts": 11.203, "total": ("VDD_IN",)},
    ),
    "Thor, JetPack 7": (
        "05-14-2026 21:36:35 RAM 26063/125772MB (lfb 35x4MB) CPU [2%@972,0%@972] cpu@62.5C/62.9C gpu@61.906C/62C tj@62.5C/62.9C "
        "soc012@60C/60C "
        "VDD_GPU -392mW/-392mW/0mW VDD_CPU_SOC_MSS 3924mW/3835mW/4000mW VIN_SYS_5V0 5064mW/5055mW/5100mW VIN 15004mW/15096mW/15200mW",
        {"ram": (26063, 125772), "load": None, "clock": None, "hot": ("cpu", 62.5), "watts": 15.004, "total": ("VIN",)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("board", LINES)
def test_a_line_of_each_generation(board: str) -> None:
    line, expected = LINES[board]
    sample = parse_line(line)
    assert sample is not None
    assert (sample.ram_used_bytes, sample.ram_total_bytes) == tuple(size * MIB for size in expected["ram"])
    assert (sample.gpu_load_percent, sample.gpu_clock_mhz) == (expected["load"], expected["clock"])
    hottest = max(sample.temperatures_c, key=lambda name: sample.temperatures_c[name])
    assert (hottest, sample.temperatures_c[hottest]) == expected["hot"]
    assert all(value > 0 for value in sample.temperatures_c.values()), "a sensor that is off tells nothing"
    assert total_rails(sample.rails_watts) == expected["total"]
    assert sum(sample.rails_watts[name] for name in expected["total"]) == pytest.approx(expected["watts"])
    assert not {"RAM", "SWAP", "MTS"} & set(sample.rails_watts)


def test_unknown_rails_add_up_to_nothing() -> None:
    assert total_rails({"VDD_SOMETHING": 4.0}) == ()


@given(st.text(max_size=200))
def test_any_other_text_is_no_line(text: str) -> None:
    assert parse_line(text.replace("RAM", "")) is None


def test_the_state_of_the_board() -> None:
    assert power_mode("NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_15W_6CORE\n2\n") == "MODE_15W_6CORE"
    assert power_mode(None) is None
    free = "cpu0: Online=1 Governor=schedutil MinFreq=1190400 MaxFreq=1907200 CurrentFreq=1190400\nGPU MinFreq=1 MaxFreq=1 CurrentFreq=1"
    assert clocks_pinned(free) is False
    assert clocks_pinned(free.replace("MinFreq=1190400", "MinFreq=1907200")) is True
    assert clocks_pinned("Error: Run this script as a root user") is None
