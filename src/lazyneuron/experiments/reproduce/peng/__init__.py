"""Tables and figures of Peng et al.: gradient sparsity, flat minima, and the doubly biased modules."""
