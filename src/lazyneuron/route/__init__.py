"""Data-dependent sparse models: an input uses only the units that a router names.

Routers and layers for any model, and regression in hashed buckets; the estimators in :mod:`lazyneuron.route.estimators`
import scikit-learn. Safe to add: a router, a construction, a target. What a bucket's sums mean is in saved files.
"""

from lazyneuron.route.affine_hash import AffineHash, random_hash
from lazyneuron.route.bucket_polynomials import BucketPolynomials
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
from lazyneuron.route.exponents import Exponent, fit_exponent, predicted_slope
from lazyneuron.route.ffn import RoutedFFN, RouteFFN
from lazyneuron.route.geometry import (
    bucket_diameter,
    gaussian_bucket_diameter,
    gaussian_hyperplanes,
    hyperplane_cells,
    lsh_hyperplanes,
)
from lazyneuron.route.hash_routers import EuclideanLSH, HyperplaneLSH, RandomHash
from lazyneuron.route.layers import DSM, SparseLayer, SparseStack
from lazyneuron.route.polynomials import lsh_model_flops, monomials, polynomial_terms
from lazyneuron.route.router import Route, Router
from lazyneuron.route.sampled_output import HashedOutput
from lazyneuron.route.score_routers import GlobalGates, NearestNeighbours, ScalingBlocks, Switch, TopK
from lazyneuron.route.sparse_coding import SparseCoding, iterated_shrinkage, learn_dictionary
from lazyneuron.route.table import BucketTable
from lazyneuron.route.table_file import load_table, save_table
from lazyneuron.route.targets import (
    GridFunction,
    HypercubeFunction,
    Polynomial,
    on_manifold,
    on_subspace,
    random_grid_function,
    random_hypercube_function,
    random_polynomial,
)
from lazyneuron.route.theory import (
    OrderBound,
    dense_forward_flops,
    dense_samples,
    dense_width,
    lsh_forward_flops,
    lsh_samples,
    lsh_table_size,
    nonempty_buckets,
)

__all__ = [
    "DSM",
    "AffineHash",
    "BucketPolynomials",
    "BucketTable",
    "EuclideanLSH",
    "Exponent",
    "GlobalGates",
    "GridFunction",
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
    "SparseCoding",
    "SparseLayer",
    "SparseStack",
    "Switch",
    "TopK",
    "bucket_diameter",
    "dense_forward_flops",
    "dense_samples",
    "dense_width",
    "euclidean_lsh_model",
    "fit_exponent",
    "gated_layer",
    "gaussian_bucket_diameter",
    "gaussian_hyperplanes",
    "hyperplane_cells",
    "interpolation",
    "iterated_shrinkage",
    "learn_dictionary",
    "load_table",
    "lsh_forward_flops",
    "lsh_hyperplanes",
    "lsh_model",
    "lsh_model_flops",
    "lsh_samples",
    "lsh_table_size",
    "monomials",
    "nearest_neighbour_regression",
    "nonempty_buckets",
    "on_manifold",
    "on_subspace",
    "polynomial_terms",
    "predicted_slope",
    "random_grid_function",
    "random_hash",
    "random_hash_layer",
    "random_hypercube_function",
    "random_polynomial",
    "save_table",
    "scaling_layer",
    "switch_layer",
    "top_k_layer",
]
