"""The memory that this process has had at most."""

from __future__ import annotations

import sys


def peak_bytes() -> int | None:
    """The most physical memory that this process had since it started; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
