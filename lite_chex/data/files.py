"""Writing a file so that a crash, a full disk or Ctrl-C never leaves half of one under its name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from lite_chex.errors import UserError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; renamed to ``path`` when the block ends well.

    An earlier file of that name stays as it was until then, and for good if the block fails.

    Raises:
        UserError: if ``path`` is a folder, its folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file in it")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"{path}: could not be written ({reason}); what was there before is unchanged") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def refuse_overwriting(written: Mapping[str, Path | None], read: Iterable[Path | None]) -> None:
    """Refuse an output that is one of the command's own inputs, and one file for two outputs.

    written: by option, as the user gave them.

    Raises:
        UserError: naming the option and the file.
    """
    inputs = [path for path in read if path is not None and path.exists()]
    for option, path in written.items():
        if path is not None and path.exists() and any(path.samefile(given) for given in inputs):
            raise UserError(f"{option} {path}: this command reads that file; give another name to write to")
    first: dict[Path, str] = {}
    for option, path in written.items():
        if path is not None and first.setdefault(path.resolve(), option) != option:
            raise UserError(f"{option} {path}: {first[path.resolve()]} writes that file; give each its own")
