"""Faults by command: ``python -m tests.faults --kills 500``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest has it

from tests.faults.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
