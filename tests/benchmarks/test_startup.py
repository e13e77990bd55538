"""The start-up benchmark runs the real commands."""

from __future__ import annotations

import startup
from machine import machine


def test_every_command_is_timed() -> None:
    seconds = startup.measure(1)
    assert {name: len(found) for name, found in seconds.items()} == dict.fromkeys(startup.COMMANDS, 1)
    # An interpreter that imports torch cannot be faster than one that does nothing.
    assert seconds["import torch"][0] > seconds[startup.FLOOR][0] > 0
    assert startup.table_of(seconds).row_count == len(startup.COMMANDS)


def test_machine_names_versions_that_are_installed() -> None:
    found = machine("numpy", "no-such-package")
    assert str(found["numpy"])[0].isdigit()
    assert "no-such-package" not in found
    assert found["cores"]
