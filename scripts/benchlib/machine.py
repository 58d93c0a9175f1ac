"""What the figures were measured on."""

import os
import platform
import re
import subprocess
from pathlib import Path

from server import OTLAKE


def describe():
    """The processor, the memory, the system and the program, in one line."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    memory = int(re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)[1])
    version = subprocess.run([OTLAKE, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} x {cpu[1] if cpu else platform.machine()}, {memory / (1 << 20):.0f} GiB, "
        f"Linux {platform.release()}, {version}, load at the end {load:.1f}"
    )
