"""The small files of a folder, a zip or a tar, one at a time: releases come packed either way."""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from lite_chex.errors import UserError

_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def is_archive(path: Path) -> bool:
    """True for a folder, a zip or a tar (packed or not), by name."""
    return path.is_dir() or path.name.lower().endswith((".zip", *_TAR))


def iter_files(path: Path, extension: str) -> Iterator[tuple[str, bytes]]:
    """Name (inside the folder or archive, with ``/``) and content of each file with that extension.

    A folder is read in the order of its names, an archive in its own order; nothing is unpacked to disk.

    Raises:
        UserError: if the path is missing, neither folder nor archive, damaged, or has no such file.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such folder or archive")
    if not is_archive(path):
        raise UserError(f"{path}: is neither a folder nor an archive (.zip, {', '.join(_TAR)})")
    read = _folder if path.is_dir() else _zip if path.name.lower().endswith(".zip") else _tar
    any_read = False
    try:
        for item in read(path, extension):
            any_read = True
            yield item
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: is a damaged archive; fetch it again") from error
    except (RuntimeError, NotImplementedError) as error:
        # zipfile's way to say that a password or another packer is needed.
        raise UserError(f"{path}: is a zip that cannot be opened here; unpack it and give the folder") from error
    except OSError as error:
        raise UserError(
            f"{error.filename or path}: cannot be read ({error.strerror or type(error).__name__})"
        ) from error
    if not any_read:
        raise UserError(f"{path}: holds no {extension} file")


def _wanted(name: str, extension: str) -> bool:
    """Not the hidden ones: macOS puts ``__MACOSX/._1.xml`` beside each ``1.xml``."""
    return name.endswith(extension) and not name.rpartition("/")[2].startswith(".")


def _folder(path: Path, extension: str) -> Iterator[tuple[str, bytes]]:
    def refuse(error: OSError) -> None:
        raise error

    seen: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(path, onerror=refuse, followlinks=True):
        found = os.stat(folder)
        if (found.st_dev, found.st_ino) in seen:  # a link to what was read before, perhaps to itself
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        folders.sort()
        for name in sorted(names):
            if _wanted(name, extension):
                file = Path(folder, name)
                yield file.relative_to(path).as_posix(), file.read_bytes()


def _zip(path: Path, extension: str) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if _wanted(info.filename, extension):
                yield info.filename, archive.read(info)


def _tar(path: Path, extension: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            if not _wanted(member.name, extension):
                continue
            if member.islnk() or member.issym():
                raise UserError(
                    f"{path}: has links in it, which cannot be followed here; unpack it and give the folder"
                )
            file = archive.extractfile(member)
            if file is not None:
                yield member.name, file.read()
