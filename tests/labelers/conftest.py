"""The helpers beside the tests (word_labeler) are importable however pytest was started."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
