"""All experiments by name."""

from __future__ import annotations

from lazyneuron.core.errors import ConfigError
from lazyneuron.reproduce import minilm_frontier, peng_identity, peng_shifted, peng_vision
from lazyneuron.reproduce.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    e.name: e
    for e in (
        peng_vision.EXPERIMENT,
        peng_shifted.EXPERIMENT,
        peng_identity.EXPERIMENT,
        minilm_frontier.EXPERIMENT,
    )
}


def experiment(name: str) -> Experiment:
    """The experiment of a name.

    Raises:
        ConfigError: there is none.
    """
    if name not in EXPERIMENTS:
        raise ConfigError(f"There is no experiment {name!r}; there are {', '.join(EXPERIMENTS)}.")
    return EXPERIMENTS[name]
