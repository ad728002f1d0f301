"""The recipes of :func:`lazyneuron.sparsify_`, one file each; each registers itself, and none knows another."""
