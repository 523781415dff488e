"""In a guest: tells igb what its emulated NIC never says, that its PHY has been configured.

A NIC sets CFG_DONE in EEMNGCTL after each reset; QEMU's leaves it clear, so igb_get_cfg_done_82575() asks a hundred
times: 0.2 s of sleep under RTNL, three times in a native attach. QEMU takes what is written there. Needs
``iomem=relaxed``.
"""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

EEMNGCTL, CFG_DONE = 0x1010, 0x80000000 | 1 << 18
"""E1000_EEMNGCTL, and E1000_NVM_CFG_DONE_PORT_0 beside what it holds anyway."""
ID = ("0x8086", "0x10c9")
LENGTH = 0x20000
PERIOD = 0.01


def registers() -> list[memoryview]:
    """The registers of each 82576, in words of 32 bits."""
    found = []
    for folder in sorted(Path("/sys/bus/pci/devices").iterdir()):
        if (
            folder.joinpath("vendor").read_text().strip(),
            folder.joinpath("device").read_text().strip(),
        ) == ID:
            bar = os.open(folder / "resource0", os.O_RDWR)
            found.append(memoryview(mmap.mmap(bar, LENGTH)).cast("I"))
            os.close(bar)
    return found


def main() -> None:
    nics = registers()
    while nics:
        for one in nics:
            one[EEMNGCTL // 4] = CFG_DONE
        time.sleep(PERIOD)


if __name__ == "__main__":
    main()
