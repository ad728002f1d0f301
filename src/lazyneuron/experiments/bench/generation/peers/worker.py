"""The process beside: loads an engine's model once, then answers one request a line. Needs the standard library only.

``python worker.py ENGINE_FILE``; the first line is what ``Engine`` of that file is made of, each other one a call.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from typing import Any

_LEAST_S = 0.1  # between two requests, for the processor time in between to say something


def serve(engine_file: str) -> None:
    """Answer until the input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what an engine prints is no reply

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    engine, left = None, (0.0, 0.0)
    for line in sys.stdin:
        request = json.loads(line)
        now = time.perf_counter(), time.process_time()
        apart = now[0] - left[0]
        idle = (now[1] - left[1]) / apart if apart > _LEAST_S else 0.0
        try:
            if engine is None:
                engine = _load(engine_file).Engine(request)
                reply({"facts": engine.facts})
            else:
                reply({"ms": getattr(engine, request["call"])(*request["arguments"]), "idle": idle})
        except Exception as error:  # whatever an engine raises becomes a row
            reply({"error": f"{type(error).__name__}: {error}".splitlines()[0]})
        left = time.perf_counter(), time.process_time()


def _load(path: str) -> Any:
    sys.path.append(os.path.dirname(path))  # last: what the file shares with its neighbours
    spec = importlib.util.spec_from_file_location("engine_of_worker", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.path.pop(0)  # files beside this one have the names of packages
    serve(sys.argv[1])
