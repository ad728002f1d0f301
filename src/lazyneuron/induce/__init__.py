"""Changing a network so that fewer of its neurons fire: activations, penalties and distillation.

For users and for `train`: `recipe.py` is the protocol, `recipes/` holds a file a recipe, `activations/` and `modules/`
what they put into models, `training/` what is used while training. A recipe touches a model through `blocks` alone.
"""

from lazyneuron.induce.activations.jsrelu import JSReLU
from lazyneuron.induce.activations.neuron_threshold import NeuronThreshold
from lazyneuron.induce.activations.rectifiers import DReLU, FATReLU, SquaredReLU
from lazyneuron.induce.activations.shifted import ShiftedActivation
from lazyneuron.induce.activations.thresholded import Thresholded
from lazyneuron.induce.activations.topk import BlockTopK, StatisticalTopK, TopK
from lazyneuron.induce.compact import compact_
from lazyneuron.induce.modules.norm_floor import NormFloor
from lazyneuron.induce.modules.token_noise import TokenWeightNoise
from lazyneuron.induce.modules.zeroth_bias import ZerothBias
from lazyneuron.induce.project import parameter_groups, project_
from lazyneuron.induce.recipe import Fitted, Plan, Recipe, register_recipe
from lazyneuron.induce.recipes.chain import Chain
from lazyneuron.induce.recipes.doubly_biased import DoublyBiased
from lazyneuron.induce.recipes.keep_top import KeepTop
from lazyneuron.induce.recipes.l1 import L1, added_loss
from lazyneuron.induce.recipes.relufy import Relufy
from lazyneuron.induce.recipes.threshold import Threshold
from lazyneuron.induce.revive import revive_
from lazyneuron.induce.sparsify import plan, sparsify_
from lazyneuron.induce.training.controller import DensityController, TargetDensity
from lazyneuron.induce.training.distill import distill, token_error
from lazyneuron.induce.training.layerwise import distill_layerwise
from lazyneuron.induce.training.loop import Distillation, Step
from lazyneuron.induce.training.penalty import firing_penalty, hoyer_penalty, l1_penalty, log_penalty, real_rows
from lazyneuron.induce.training.pressure import Pressure, pre_activations
from lazyneuron.induce.training.refit import offsets_for, refit_down_, shift_bias_, thresholds_for
from lazyneuron.induce.training.samples import BlockSamples, block_samples
from lazyneuron.induce.training.schedule import Constant, Linear, Progressive

__all__ = [
    "L1",
    "BlockSamples",
    "BlockTopK",
    "Chain",
    "Constant",
    "DReLU",
    "DensityController",
    "Distillation",
    "DoublyBiased",
    "FATReLU",
    "Fitted",
    "JSReLU",
    "KeepTop",
    "Linear",
    "NeuronThreshold",
    "NormFloor",
    "Plan",
    "Pressure",
    "Progressive",
    "Recipe",
    "Relufy",
    "ShiftedActivation",
    "SquaredReLU",
    "StatisticalTopK",
    "Step",
    "TargetDensity",
    "Threshold",
    "Thresholded",
    "TokenWeightNoise",
    "TopK",
    "ZerothBias",
    "added_loss",
    "block_samples",
    "compact_",
    "distill",
    "distill_layerwise",
    "firing_penalty",
    "hoyer_penalty",
    "l1_penalty",
    "log_penalty",
    "offsets_for",
    "parameter_groups",
    "plan",
    "pre_activations",
    "project_",
    "real_rows",
    "refit_down_",
    "register_recipe",
    "revive_",
    "shift_bias_",
    "sparsify_",
    "thresholds_for",
    "token_error",
]
