"""Talking to another engine's process."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from lazyneuron.core.errors import ConfigError, ImplUnavailable
from lazyneuron.experiments.bench.generation.shapes import Shape

_HERE = Path(__file__).resolve().parent
ENGINES = {
    "llama.cpp": _HERE / "llama_cpp_engine.py",
    "CTranslate2": _HERE / "ctranslate2_engine.py",
}
_BEGIN_S, _ANSWER_S = 900.0, 300.0
_SPINNING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # an engine's own choice counts


class Peer:
    """Another engine that has loaded its model; a context.

    Args:
        engine: the file with its ``Engine``.
        python: the interpreter that has its packages; None takes this one.
        wanted: what the engine is made of.

    Attributes:
        facts: versions, settings and bytes that a token reads, as the engine tells them.
        idle: largest share of one processor that it took between two requests.

    Raises:
        ImplUnavailable: the interpreter or a package is missing, or the engine failed.
    """

    def __init__(self, engine: Path, *, python: Path | None, wanted: dict[str, Any]) -> None:
        self.idle = 0.0
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        settings = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", *_SPINNING)}
        settings["OMP_NUM_THREADS"] = str(wanted["threads"])
        command = [str(python or sys.executable), str(_HERE / "worker.py"), str(engine)]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, env=settings
            )
        except OSError as error:
            self._said.close()
            raise ImplUnavailable(f"The interpreter {command[0]} does not run ({error.strerror}).") from error
        try:
            self.facts: dict[str, Any] = self._ask(wanted, _BEGIN_S)["facts"]
        except BaseException:
            self.close()
            raise

    def decode(self, prompt: list[int], tokens: int) -> list[float]:
        """Milliseconds of each of so many tokens after a prompt."""
        return self.call("decode", prompt, tokens)

    def prefill(self, prompt: list[int]) -> list[float]:
        """Milliseconds of a prompt."""
        return self.call("prefill", prompt)

    def call(self, name: str, *arguments: Any) -> list[float]:
        """What a method of the engine answers: milliseconds, if it took any."""
        answer = self._ask({"call": name, "arguments": list(arguments)}, _ANSWER_S)
        self.idle = max(self.idle, answer["idle"])
        found: list[float] = answer["ms"]
        return found

    def _ask(self, message: dict[str, Any], limit_s: float) -> dict[str, Any]:
        sent, back = self._process.stdin, self._process.stdout
        assert sent is not None and back is not None
        try:
            sent.write(json.dumps(message).encode() + b"\n")
            sent.flush()
        except OSError as error:
            raise ImplUnavailable(f"The engine's process ended. {self._last_words()}".rstrip()) from error
        if not select.select([back], [], [], limit_s)[0]:
            raise ImplUnavailable(f"The engine did not answer within {limit_s:g} seconds.")
        line = back.readline()
        if not line:
            raise ImplUnavailable(f"The engine's process ended. {self._last_words()}".rstrip())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ImplUnavailable(str(answer["error"]))
        return answer

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # what was not sent is lost with the process
                pipe.close()
        self._said.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def begin(name: str, shape: Shape, *, python: Path | None, threads: int, folder: Path) -> Peer:
    """The engine of a name such as ``"llama.cpp Q8_0"``, with its model loaded.

    Args:
        name: the engine and its format.
        shape: of the model.
        python: the interpreter that has its packages; None takes this one.
        threads: that it uses.
        folder: where it finds or puts its model.

    Raises:
        ImplUnavailable: it does not run here.
    """
    engine, form = name.split(" ")
    wanted = {"shape": dataclasses.asdict(shape), "format": form, "threads": threads, "folder": str(folder)}
    return Peer(ENGINES[engine], python=python, wanted=wanted)


def check_interpreter(python: Path | None) -> None:
    """Refuse an interpreter that is not there.

    Raises:
        ConfigError: it is no file that can be run.
    """
    if python is not None and not (python.is_file() and os.access(python, os.X_OK)):
        raise ConfigError(f"{python} is no interpreter that can be run; name the python of an environment.")
