"""An encoder in the engines that users run otherwise, each in a process of its own, beside ours in this one.

``engine.py`` lists them, ``beside.py`` runs them in turns; the files ``*_worker.py`` run in their processes.
"""
