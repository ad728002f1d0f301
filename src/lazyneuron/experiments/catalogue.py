"""All experiments by name."""

from __future__ import annotations

from lazyneuron.core.errors import ConfigError
from lazyneuron.experiments.experiment import Experiment
from lazyneuron.experiments.reproduce import minilm_frontier
from lazyneuron.experiments.reproduce.awasthi import bounds as awasthi_bounds
from lazyneuron.experiments.reproduce.awasthi import learning as awasthi_learning
from lazyneuron.experiments.reproduce.awasthi import parities as awasthi_parities
from lazyneuron.experiments.reproduce.awasthi import spectra as awasthi_spectra
from lazyneuron.experiments.reproduce.baykal import expressive as baykal_expressive
from lazyneuron.experiments.reproduce.baykal import fig1 as baykal_fig1
from lazyneuron.experiments.reproduce.baykal import slopes as baykal_slopes
from lazyneuron.experiments.reproduce.baykal import table1 as baykal_table1
from lazyneuron.experiments.reproduce.baykal import table2 as baykal_table2
from lazyneuron.experiments.reproduce.baykal import transformer as baykal_transformer
from lazyneuron.experiments.reproduce.baykal import units as baykal_units
from lazyneuron.experiments.reproduce.peng import finetune as peng_finetune
from lazyneuron.experiments.reproduce.peng import identity as peng_identity
from lazyneuron.experiments.reproduce.peng import language as peng_language
from lazyneuron.experiments.reproduce.peng import marchenko_pastur as peng_mp
from lazyneuron.experiments.reproduce.peng import shifted as peng_shifted
from lazyneuron.experiments.reproduce.peng import vision as peng_vision

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
