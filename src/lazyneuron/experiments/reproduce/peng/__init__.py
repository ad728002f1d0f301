"""Tables and figures of Peng et al.: gradient sparsity, flat minima, and the doubly biased modules.

For `lazyneuron reproduce peng-...`; built on experiments/training, `induce` and `explain`.
"""
