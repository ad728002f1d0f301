"""Many trainings over recipes and strengths: what density costs which quality.

For `lazyneuron sweep` and for scripts. A sweep's file (journal.py) is a promise: a line a finished point, read by later
versions; a built-in task is a function and a line in task.py.
"""

from lazyneuron.experiments.sweep.execution import sweep
from lazyneuron.experiments.sweep.frontier import pareto, sweep_record
from lazyneuron.experiments.sweep.journal import Finished, read_finished
from lazyneuron.experiments.sweep.settings import grid, read_settings

__all__ = ["Finished", "grid", "pareto", "read_finished", "read_settings", "sweep", "sweep_record"]
