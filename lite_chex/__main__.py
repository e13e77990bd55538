"""``python -m lite_chex`` is ``litechex``."""

from lite_chex.cli import main

main()
