"""Many trainings over recipes and strengths: what density costs which quality."""

from lazyneuron.sweep.frontier import pareto, sweep_record
from lazyneuron.sweep.journal import Finished
from lazyneuron.sweep.run import sweep
from lazyneuron.sweep.settings import grid, read_settings

__all__ = ["Finished", "grid", "pareto", "read_settings", "sweep", "sweep_record"]
