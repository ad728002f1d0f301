"""Data-dependent sparse models: an input uses only the units that a router names.

Routers and layers for any model, and regression in hashed buckets; the estimators in :mod:`lazyneuron.route.estimators`
import scikit-learn. Safe to add: a router, a construction, a target. What a bucket's sums mean is in saved files.
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
from lazyneuron.route.ffn import RoutedFFN, RouteFFN
from lazyneuron.route.hash_routers import EuclideanLSH, HyperplaneLSH, RandomHash
from lazyneuron.route.layers import DSM, SparseLayer, SparseStack
from lazyneuron.route.router import Route, Router
from lazyneuron.route.sampled_output import HashedOutput
from lazyneuron.route.score_routers import GlobalGates, NearestNeighbours, ScalingBlocks, Switch, TopK
from lazyneuron.route.table import BucketTable
from lazyneuron.route.table_file import load_table, save_table
from lazyneuron.route.targets import (
    HypercubeFunction,
    Polynomial,
    on_manifold,
    on_subspace,
    random_hypercube_function,
    random_polynomial,
)
from lazyneuron.route.theory import (
    Exponent,
    OrderBound,
    dense_samples,
    dense_width,
    fit_exponent,
    lsh_forward_flops,
    lsh_samples,
    lsh_table_size,
    nonempty_buckets,
    predicted_slope,
)

__all__ = [
    "DSM",
    "AffineHash",
    "BucketTable",
    "EuclideanLSH",
    "Exponent",
    "GlobalGates",
    "HashedOutput",
    "HypercubeFunction",
    "HyperplaneLSH",
    "NearestNeighbours",
    "OrderBound",
    "Polynomial",
    "RandomHash",
    "Route",
    "RouteFFN",
    "RoutedFFN",
    "Router",
    "ScalingBlocks",
    "SparseLayer",
    "SparseStack",
    "Switch",
    "TopK",
    "dense_samples",
    "dense_width",
    "euclidean_lsh_model",
    "fit_exponent",
    "gated_layer",
    "interpolation",
    "load_table",
    "lsh_forward_flops",
    "lsh_model",
    "lsh_samples",
    "lsh_table_size",
    "nearest_neighbour_regression",
    "nonempty_buckets",
    "on_manifold",
    "on_subspace",
    "predicted_slope",
    "random_hash",
    "random_hash_layer",
    "random_hypercube_function",
    "random_polynomial",
    "save_table",
    "scaling_layer",
    "switch_layer",
    "top_k_layer",
]
