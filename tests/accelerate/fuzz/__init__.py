"""A fuzz of certified execution over the whole range of floating point: made blocks, run at every level, and judged."""
