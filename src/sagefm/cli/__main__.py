"""Run the command as ``python -m sagefm.cli``."""

from sagefm.cli import main

if __name__ == "__main__":
    main()
