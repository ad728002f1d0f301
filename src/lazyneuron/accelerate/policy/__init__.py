"""Which path a block takes for how many tokens: predicted, measured on its own inputs, and followed while it runs."""
