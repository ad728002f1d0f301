"""Data-dependent sparse models: routers, bucket tables, layers, target functions and theory.

The estimators with scikit-learn's contract are in :mod:`lazyneuron.route.estimators`, which imports scikit-learn.
"""

from lazyneuron.route.affine_hash import AffineHash, random_hash
from lazyneuron.route.constructions import (
    euclidean_lsh_model,
    gated_layer,
    interpolation,
    lsh_model,
    nearest_neighbour_regression,
    random_hash_layer,
    scaling_layer,
    switch_layer,
    top_k_layer,
)
from lazyneuron.route.dsm import DSM, SparseStack
from lazyneuron.route.hash_routers import EuclideanLSH, HyperplaneLSH, RandomHash
from lazyneuron.route.router import Route, Router
from lazyneuron.route.score_routers import GlobalGates, NearestNeighbours, ScalingBlocks, Switch, TopK
from lazyneuron.route.table import BucketTable
from lazyneuron.route.table_file import load_table, save_table

__all__ = [
    "DSM",
    "AffineHash",
    "BucketTable",
    "EuclideanLSH",
    "GlobalGates",
    "HyperplaneLSH",
    "NearestNeighbours",
    "RandomHash",
    "Route",
    "Router",
    "ScalingBlocks",
    "SparseStack",
    "Switch",
    "TopK",
    "euclidean_lsh_model",
    "gated_layer",
    "interpolation",
    "load_table",
    "lsh_model",
    "nearest_neighbour_regression",
    "random_hash",
    "random_hash_layer",
    "save_table",
    "scaling_layer",
    "switch_layer",
    "top_k_layer",
]
