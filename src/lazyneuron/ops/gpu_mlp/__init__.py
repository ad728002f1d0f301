"""A block's decode step on a GPU, by Triton: gate (or up) first, then only the rows of neurons that fire."""
