"""All experiments by name."""

from __future__ import annotations

from lazyneuron.core.errors import ConfigError
from lazyneuron.reproduce import (
    awasthi_bounds,
    awasthi_learning,
    awasthi_parities,
    awasthi_spectra,
    baykal_expressive,
    baykal_fig1,
    baykal_slopes,
    baykal_table1,
    baykal_table2,
    baykal_transformer,
    baykal_units,
    minilm_frontier,
    peng_finetune,
    peng_identity,
    peng_language,
    peng_mp,
    peng_shifted,
    peng_vision,
)
from lazyneuron.reproduce.experiment import Experiment

_AWASTHI = (
    *awasthi_spectra.EXPERIMENTS,
    *awasthi_learning.EXPERIMENTS,
    *awasthi_parities.EXPERIMENTS,
    *awasthi_bounds.EXPERIMENTS,
)
EXPERIMENTS: dict[str, Experiment] = {
    e.name: e
    for e in (
        peng_vision.EXPERIMENT,
        peng_language.DECODER,
        peng_language.SPANS,
        peng_finetune.VISION,
        peng_finetune.LANGUAGE,
        peng_shifted.EXPERIMENT,
        peng_identity.EXPERIMENT,
        peng_mp.EXPERIMENT,
        minilm_frontier.EXPERIMENT,
        *sorted(_AWASTHI, key=lambda e: int(e.name.removeprefix("awasthi-f"))),
        baykal_fig1.EXPERIMENT,
        baykal_units.FIG2,
        baykal_units.FIG3,
        baykal_units.FIG4,
        baykal_table1.EXPERIMENT,
        baykal_table2.EXPERIMENT,
        baykal_slopes.SLOPES,
        baykal_slopes.DEGREE,
        baykal_expressive.EXPERIMENT,
        baykal_transformer.EXPERIMENT,
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
