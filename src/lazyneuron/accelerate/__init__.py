"""Certified skipping: neurons that are proved silent cost (almost) nothing, and the output stays what it was."""

from lazyneuron.accelerate.status import refresh_, status
from lazyneuron.accelerate.transform import accelerate_, plan_acceleration

__all__ = ["accelerate_", "plan_acceleration", "refresh_", "status"]
