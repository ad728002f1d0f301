"""``python -m lazyneuron``: the command line."""

from lazyneuron.cli.main import main

if __name__ == "__main__":
    main()
