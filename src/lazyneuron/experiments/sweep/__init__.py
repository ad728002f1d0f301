"""Many trainings over recipes and strengths: what density costs which quality."""

from lazyneuron.experiments.sweep.frontier import pareto, sweep_record
from lazyneuron.experiments.sweep.journal import Finished, read_finished
from lazyneuron.experiments.sweep.run import sweep
from lazyneuron.experiments.sweep.settings import grid, read_settings

__all__ = ["Finished", "grid", "pareto", "read_finished", "read_settings", "sweep", "sweep_record"]
