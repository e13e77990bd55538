"""What is wrong with a recipe, in words: every wrong key at once, with the nearest one that exists."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from lite_chex.errors import UserError


class _OnceLoader(yaml.SafeLoader):
    """YAML in which no key stands twice: PyYAML lets the later one win, and half a recipe would be lost unsaid."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        written = [key for key in keys if key.tag != "tag:yaml.org,2002:merge"]
        seen: set[str] = set()
        for key in written:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f'the key "{key.value}" stands twice', problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_sections(path: Path) -> dict[str, Any]:
    """The sections of a recipe file, not yet validated.

    Raises:
        UserError: if it is not readable YAML, has a key twice in one place, or is no mapping.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _OnceLoader)
    except (yaml.YAMLError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
            reason = f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {error.problem}"
        raise UserError(f"{path}: not a readable YAML file ({reason})") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: a recipe is a mapping of sections (model, data, sft, ...)")
    return raw


def mistakes(error: ValidationError, recipe: type[BaseModel]) -> Iterator[str]:
    """One phrase for each mistake that validation found."""
    for item in error.errors():
        loc = item["loc"]
        where = ".".join(str(part) for part in loc)
        if item["type"] == "extra_forbidden":
            close = difflib.get_close_matches(str(loc[-1]), _known_keys(recipe, loc[:-1]), n=1, cutoff=0.5)
            yield f"unknown key {where}" + (f" (did you mean {close[0]}?)" if close else "")
        elif item["type"] == "missing":
            yield f"{where} is missing"
        else:
            message = item["msg"].removeprefix("Value error, ")
            yield f"{where}: {message}" if where and not message.startswith(f"{where}.") else message


def _known_keys(recipe: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    model: Any = recipe
    for part in loc:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        args = [a for a in getattr(annotation, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)]
        model = args[0] if args else annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return []
    return list(model.model_fields)
