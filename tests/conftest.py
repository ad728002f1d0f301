"""What all tests share: no network, no time limits of hypothesis, sleeping threads, and fresh memory that holds NaN."""

import os

import torch
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# read when torch is loaded; on two busy cores spinning tripled the CPU time of small tests
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if not torch.cuda.is_available():  # read when triton is imported: kernels for GPUs run in its interpreter
    os.environ.setdefault("TRITON_INTERPRET", "1")
# the same cases each time, so that a red run is the change's own; others: pytest --hypothesis-profile=random
settings.register_profile("lazyneuron", deadline=None, derandomize=True, database=None)
settings.register_profile("random", deadline=None)
settings.load_profile("lazyneuron")

# torch.empty and its kin, from Python and from C++, give NaN or the largest integer: what is read before it is written
# shows. torch.use_deterministic_algorithms does the same after seconds of importing torch.compile's modules.
torch._C._set_deterministic_algorithms(True, warn_only=False)
torch.utils.deterministic.fill_uninitialized_memory = True
