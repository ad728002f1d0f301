"""Other engines, each in a process of its own, maybe in another interpreter.

``worker`` and the engines import nothing of ours: they run where only the engine's packages are installed.
"""
