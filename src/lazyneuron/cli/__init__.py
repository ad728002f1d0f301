"""The ``lazyneuron`` command: parses, calls a room, prints; nothing imports it."""
