"""Measuring speed, quality and memory of certified execution beside its alternatives, on synthetic blocks."""
