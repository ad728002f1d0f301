"""The ``lazyneuron`` command: a file a sub-command, which parses, calls a room and prints; nothing imports it.

``options`` declares what several commands take, ``inputs`` loads model and data, ``screen`` shows, ``output`` writes.
Texts may be changed freely; options, exit codes and keys of records are promised (docs/cli.md). Rooms are imported
inside functions only, so that ``--help`` answers at once.
"""
