"""Tables and figures of Awasthi et al.: learning and certifying sparsely activated networks."""
