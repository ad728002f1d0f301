"""JSReLU, a rectifier whose slope grows with its input: its definition and its implementations."""
