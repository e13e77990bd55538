"""What is wrong with a recipe, in words: every wrong key at once, with the nearest one that exists."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError


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
            yield f"{where}: {message}" if where else message


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
