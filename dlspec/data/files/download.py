"""Fetches a published file into the cache: checked before it gets its name, so that what stands there is whole."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO
from urllib.request import urlopen

from rich.console import Console
from rich.progress import Progress

CHUNK = 1 << 16
TIMEOUT = 20.0


class DownloadError(Exception):
    """Why a file could not be had, in one line."""


def cache_folder(name: str) -> Path:
    """`$DLSPEC_CACHE/NAME`, else `$XDG_CACHE_HOME/dlspec/NAME`, else `~/.cache/dlspec/NAME`."""
    if own := os.environ.get("DLSPEC_CACHE"):
        return Path(own) / name
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dlspec" / name


def download(url: str, path: Path, content_sha256: str, most_bytes: int) -> None:
    """The gzipped file at `url`, saved as `path`; its *unzipped* content must have that sum and at most that size.

    (Copies that were zipped anew are equal in content alone.) Fails with a `DownloadError` and leaves nothing behind.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            _save(url, file, Path(file.name), path, content_sha256, most_bytes)
    except (OSError, HTTPException, EOFError, zlib.error, ValueError) as error:
        raise DownloadError(f"{url}: {error}") from None


def _save(url: str, file: IO[bytes], written: Path, path: Path, content_sha256: str, most_bytes: int) -> None:
    try:
        _fetch(url, file, most_bytes)
        file.flush()
        os.fsync(file.fileno())
        _check(url, written, content_sha256, most_bytes)
        written.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        written.unlink(missing_ok=True)
        raise


def _fetch(url: str, file: IO[bytes], most_bytes: int) -> None:
    with urlopen(url, timeout=TIMEOUT) as answer, Progress(console=Console(stderr=True), transient=True) as progress:
        size = answer.headers.get("Content-Length")
        task = progress.add_task(url.rpartition("/")[2], total=int(size) if size else None)

        def save(chunk: bytes) -> None:
            file.write(chunk)
            progress.advance(task, len(chunk))

        _copy(answer, save, url, most_bytes)


def _copy(source: IO[bytes], sink: Callable[[bytes], object], url: str, most_bytes: int) -> None:
    """Hands every chunk of the source on; more than `most_bytes` is refused on the way."""
    total = 0
    while chunk := source.read(CHUNK):
        total += len(chunk)
        if total > most_bytes:
            raise DownloadError(f"{url}: more than {most_bytes:,} bytes, which is not the published file")
        sink(chunk)


def _check(url: str, written: Path, content_sha256: str, most_bytes: int) -> None:
    digest = hashlib.sha256()
    with gzip.open(written, "rb") as content:
        _copy(content, digest.update, url, most_bytes)  # type: ignore[arg-type]
    if digest.hexdigest() != content_sha256:
        raise DownloadError(f"{url}: its checksum is not that of the published file")


def _sync_folder(folder: Path) -> None:
    """Makes the new name last, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
