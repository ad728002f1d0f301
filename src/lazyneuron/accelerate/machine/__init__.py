"""What this machine costs: timed once on a grid, kept, interpolated; its memory's pages and its products' bits."""
