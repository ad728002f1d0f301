"""``lazyneuron`` and ``python -m lazyneuron``: the command line, and Ctrl-C while that is being imported."""

from lazyneuron.cli.interrupted import end_interrupted


def main() -> None:
    """Run the command line; exits with 0, 1 (a fault of ours), 2 (bad input) or 130 (Ctrl-C)."""
    try:
        from lazyneuron.cli.main import main as command

        command()
    except KeyboardInterrupt:
        end_interrupted()


if __name__ == "__main__":
    main()
