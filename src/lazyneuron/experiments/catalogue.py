"""All experiments by name. A new one is a file with an `EXPERIMENT`, and here its name and its module."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING

from lazyneuron.core.errors import ConfigError

if TYPE_CHECKING:
    from lazyneuron.experiments.experiment import Experiment, Kind

# the names alone, so that help and errors import nothing heavy; in the order of the documentation
NAMES: dict[Kind, tuple[str, ...]] = {
    "reproduce": (
        "peng-vision",
        "peng-language",
        "peng-t5",
        "peng-finetune-vision",
        "peng-finetune-language",
        "peng-shifted",
        "peng-identity",
        "peng-marchenko-pastur",
        *(
            f"peng-regime-{part}"
            for part in ("language", "t5", "vision", "wide", "finetune", "clipping", "pressure", "long")
        ),
        "minilm-frontier",
        "encoder-frontier",
        "tiny-lm",
        *(f"awasthi-f{number}" for number in range(1, 12)),
        "baykal-fig1",
        "baykal-fig2",
        "baykal-fig2-polynomial",
        "baykal-fig2-hypercube-subspace",
        "baykal-fig2-polynomial-subspace",
        "baykal-fig3",
        "baykal-fig3-hypercube",
        "baykal-fig3-polynomial-subspace",
        "baykal-fig3-hypercube-subspace",
        "baykal-fig4",
        "baykal-fig4-polynomial",
        "baykal-fig4-hypercube-subspace",
        "baykal-fig4-polynomial-subspace",
        "baykal-table1",
        "baykal-table2",
        "baykal-slopes",
        "baykal-degree",
        "baykal-expressive",
        "baykal-transformer",
        "baykal-sparse-coding",
        "capacity-language",
        "capacity-hypercube",
        "capacity-lipschitz",
    ),
    "benchmark": (
        *("accelerate", "checks", "encoder", "explain", "generate", "gpu", "head"),
        *("jsrelu", "learn", "openvino", "recipes", "route", "training", "training-memory", "trainings"),
    ),
    "demo": ("demo",),
    "sweep": ("sweep",),
}


def experiment(name: str, kind: Kind) -> Experiment:
    """The experiment of a name.

    Raises:
        ConfigError: there is none of this kind.
    """
    if name not in NAMES[kind]:
        word = "benchmark" if kind == "benchmark" else "experiment"
        raise ConfigError(f"There is no {word} {name!r}; there are {', '.join(NAMES[kind])}.")
    return _benchmark(name) if kind == "benchmark" else experiments(kind)[name]


@functools.cache
def experiments(kind: Kind) -> dict[str, Experiment]:
    """All of a kind by name, in the order of :data:`NAMES`."""
    load = {"reproduce": _published, "benchmark": _benchmarks, "demo": _demo, "sweep": _sweep}[kind]
    found = {one.name: one for one in load()}
    return {name: found[name] for name in NAMES[kind]}


def _published() -> tuple[Experiment, ...]:
    from lazyneuron.experiments.reproduce import encoder_frontier, minilm_frontier
    from lazyneuron.experiments.reproduce.awasthi import bounds, learning, parities, spectra
    from lazyneuron.experiments.reproduce.baykal import (
        expressive,
        fig1,
        slopes,
        sparse_coding,
        table1,
        table2,
        transformer,
        units,
    )
    from lazyneuron.experiments.reproduce.capacity import experiment as capacity
    from lazyneuron.experiments.reproduce.peng import finetune, identity, language, marchenko_pastur, shifted, vision
    from lazyneuron.experiments.reproduce.peng.regime import experiments as regime
    from lazyneuron.experiments.reproduce.tiny_lm import experiment as tiny_lm

    single = (
        *(vision, shifted, identity, marchenko_pastur, minilm_frontier, encoder_frontier, tiny_lm),
        *(fig1, table1, table2, expressive, transformer, sparse_coding),
    )
    several = (language, finetune, regime, bounds, learning, parities, spectra, units, slopes, capacity)
    return (
        *(module.EXPERIMENT for module in single),
        *(one for module in several for one in module.EXPERIMENTS),
    )


def _benchmarks() -> tuple[Experiment, ...]:
    return tuple(_benchmark(name) for name in NAMES["benchmark"])


def _benchmark(name: str) -> Experiment:
    """One alone: some need what is not installed everywhere."""
    module = importlib.import_module(f"{__package__}.bench.{name.replace('-', '_')}")
    found: Experiment = module.EXPERIMENT
    return found


def _demo() -> tuple[Experiment, ...]:
    from lazyneuron.experiments.demo import summary

    return (summary.EXPERIMENT,)


def _sweep() -> tuple[Experiment, ...]:
    from lazyneuron.experiments.sweep import digits

    return (digits.EXPERIMENT,)
