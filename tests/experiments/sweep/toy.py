"""Points that need no training, for sweeps in other processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch


def point(strength, seed=0, *, pause=0.0, log=None):
    """A known curve; notes every call in a file."""
    if log is not None:
        with Path(log).open("a") as file:
            file.write(f"{strength} {seed} {torch.get_num_threads()} {os.getpid()}\n")
    time.sleep(pause)
    if strength == "bad":
        raise ValueError("it diverged")
    return {"density": 0.5 - strength + 0.01 * seed, "quality": 1 - strength**2, "loss": 3.0, "curve": [1]}


def nothing(strength):
    return {"density": 0.5}


def dense(strength):
    return {"density": 50, "quality": 1}


def lost(strength):
    return {"density": 0.5, "quality": float("nan")}


def killed(strength):
    os._exit(9)


number = 3
