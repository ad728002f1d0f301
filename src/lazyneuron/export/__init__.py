"""Models for other engines: each sparse MLP block as one operator of ours, all else the engine's own.

A new engine is a folder beside `openvino/` and its name in `verb.py`.
"""

from lazyneuron.export.exported import Exported
from lazyneuron.export.verb import export

__all__ = ["Exported", "export"]
