"""``--set section.key=value``: one override written into a recipe's mapping, before it is validated."""

from __future__ import annotations

import contextlib
from typing import Any

import yaml

from lite_chex.errors import UserError


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set ``a.b.0.c=value`` in a nested mapping; the value is read as YAML."""
    key, eq, value = override.partition("=")
    if not eq or not key:
        raise UserError(f'--set "{override}": write section.key=value')
    try:
        parsed = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):  # ValueError: a date that there is not
        raise UserError(f"--set {key}: the value is not readable YAML") from None
    # YAML reads 1e-5 as text; people mean the number.
    if isinstance(parsed, str):
        with contextlib.suppress(ValueError):
            parsed = float(parsed)
    node: Any = raw
    *parents, last = key.split(".")
    for part in parents:
        if isinstance(node, list):
            node = node[_index(key, part, node)]
        else:
            if not isinstance(node.get(part), (dict, list)):
                node[part] = {}
            node = node[part]
        if not isinstance(node, (dict, list)):
            raise UserError(f'--set {key}: "{part}" is a value, nothing stands below it')
    if isinstance(node, list):
        node[_index(key, last, node)] = parsed
    else:
        node[last] = parsed


def _index(key: str, part: str, node: list[Any]) -> int:
    if not (part.isascii() and part.isdecimal()) or int(part) > len(node):
        raise UserError(f'--set {key}: "{part}" is no place in a list of {len(node)}')
    if int(part) == len(node):
        node.append({})
    return int(part)
