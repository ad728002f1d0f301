"""Families of sparsely activated networks with what is known about each, easy and hard."""

from lazyneuron.learn.instances.codes import Code, code_net, code_table, golay_code, hamming_code
from lazyneuron.learn.instances.instance import Instance
from lazyneuron.learn.instances.juntas import gated_net, index_net, junta_net, modulus_net, parity_net
from lazyneuron.learn.instances.lifted import lifted_parity, lwr_instance
from lazyneuron.learn.instances.random_nets import cluster_erm, cluster_net, random_sparse_net

__all__ = [
    "Code",
    "Instance",
    "cluster_erm",
    "cluster_net",
    "code_net",
    "code_table",
    "gated_net",
    "golay_code",
    "hamming_code",
    "index_net",
    "junta_net",
    "lifted_parity",
    "lwr_instance",
    "modulus_net",
    "parity_net",
    "random_sparse_net",
]
