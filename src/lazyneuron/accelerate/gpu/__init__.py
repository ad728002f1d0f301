"""Blocks on a GPU: the layer that decides what fires runs whole, then only the rows that fire; no host waits for it."""
