"""Doctests of a module whose library is not installed are not collected."""

import importlib.util

collect_ignore = [] if importlib.util.find_spec("torchao") else ["lazyneuron/torchao.py"]
