"""What stands for the whole folder: the clients and the certificate of `tests/edge` are used here too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "edge"))
