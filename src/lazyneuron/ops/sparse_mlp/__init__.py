"""The op ``y = down(s(up x))`` that computes only what fires: its definition and its implementations."""
