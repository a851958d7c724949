"""What the system says about this process; fields are None where it does not tell."""

import contextlib
import os
import resource
import sys
from pathlib import Path
from typing import Final

import attrs

_STATM: Final = Path("/proc/self/statm")
_DESCRIPTORS: Final = Path("/proc/self/fd")


@attrs.frozen
class ProcessStatistics:
    """A moment of this process."""

    pid: int
    rss_bytes: int
    cpu_s: float
    descriptors: int | None
    descriptors_limit: int


def look_at_process() -> ProcessStatistics:
    """Look now; takes about 50 µs, more with very many descriptors."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    descriptors: int | None = None
    with contextlib.suppress(OSError):
        descriptors = len(os.listdir(_DESCRIPTORS)) - 1  # noqa: PTH208 - of ten thousand, no Path each
    return ProcessStatistics(
        pid=os.getpid(),
        rss_bytes=resident_bytes(used.ru_maxrss),
        cpu_s=used.ru_utime + used.ru_stime,
        descriptors=descriptors,
        descriptors_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def resident_bytes(peak: int) -> int:
    """Resident memory now; where there is no /proc, the most there ever was (`peak`, in the system's own unit)."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak if sys.platform == "darwin" else peak * 1024
