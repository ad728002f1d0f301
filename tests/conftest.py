"""What all tests share: no network, threads that sleep while they wait, and no time limit on a hypothesis example."""

import os

from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# read when torch is loaded; on two busy cores spinning tripled the CPU time of small tests
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
settings.register_profile("lazyneuron", deadline=None)
settings.load_profile("lazyneuron")
