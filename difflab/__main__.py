"""Run the command line as ``python -m difflab``."""

from difflab.cli import main


if __name__ == "__main__":
    main()
