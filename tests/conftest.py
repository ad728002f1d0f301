"""What all tests share: no network, and no time limit on a single hypothesis example (machines differ)."""

import os

from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
settings.register_profile("lazyneuron", deadline=None)
settings.load_profile("lazyneuron")
