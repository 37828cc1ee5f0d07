"""The command `easyml-server`, also `python -m easyml_server`."""

import sys

from easyml_server.cli import run


def main() -> None:
    """Run the command line."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
