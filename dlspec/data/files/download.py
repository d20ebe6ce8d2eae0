"""Download published files into the cache. A file gets its final name after it was checked, so it is never partial."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO
from urllib.request import urlopen

from rich.console import Console
from rich.progress import Progress

from dlspec.runs.io import sync_folder

CHUNK_BYTES = 1 << 16
TIMEOUT_SECONDS = 20.0


class DownloadError(Exception):
    """A download that failed, with the reason in one line."""


def find_cache_folder(name: str) -> Path:
    """Return `$DLSPEC_CACHE/NAME`, else `$XDG_CACHE_HOME/dlspec/NAME`, else `~/.cache/dlspec/NAME`."""
    if own := os.environ.get("DLSPEC_CACHE"):
        return Path(own) / name
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dlspec" / name


def download(url: str, path: Path, content_sha256: str, max_bytes: int) -> None:
    """Download a gzipped file and check its content. A failed download leaves no file behind.

    Args:
        url: where the gzipped file is
        path: where to save it
        content_sha256: checksum of the unzipped content; gzipped copies of one content may differ
        max_bytes: largest size of the file, zipped and unzipped

    Raises:
        DownloadError: if the file cannot be downloaded or has the wrong content.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            _save_checked(_Download(url, content_sha256, max_bytes), file, Path(file.name), path)
    except (OSError, HTTPException, EOFError, zlib.error, ValueError) as error:
        raise DownloadError(f"{url}: {error}") from None


@dataclass(frozen=True)
class _Download:
    """A gzipped file to download."""

    url: str
    content_sha256: str  # of the unzipped content
    max_bytes: int  # of the file, zipped and unzipped


def _save_checked(download_spec: _Download, file: IO[bytes], written: Path, path: Path) -> None:
    try:
        _fetch(download_spec.url, file, download_spec.max_bytes)
        file.flush()
        os.fsync(file.fileno())
        _verify_checksum(download_spec, written)
        written.replace(path)
        sync_folder(path.parent)
    except BaseException:
        written.unlink(missing_ok=True)
        raise


def _fetch(url: str, file: IO[bytes], max_bytes: int) -> None:
    with (
        urlopen(url, timeout=TIMEOUT_SECONDS) as answer,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        size = answer.headers.get("Content-Length")
        task = progress.add_task(url.rpartition("/")[2], total=int(size) if size else None)

        def save(chunk: bytes) -> None:
            file.write(chunk)
            progress.advance(task, len(chunk))

        _copy_chunks(answer, save, url, max_bytes)


def _copy_chunks(source: IO[bytes], sink: Callable[[bytes], object], url: str, max_bytes: int) -> None:
    """Pass every chunk of the source to `sink`. Raise DownloadError as soon as there are more than `max_bytes`."""
    total = 0
    while chunk := source.read(CHUNK_BYTES):
        total += len(chunk)
        if total > max_bytes:
            raise DownloadError(f"{url}: the file has more than {max_bytes:,} bytes, so it is not the published one")
        sink(chunk)


def _verify_checksum(download_spec: _Download, written: Path) -> None:
    digest = hashlib.sha256()
    with gzip.open(written, "rb") as content:
        _copy_chunks(content, digest.update, download_spec.url, download_spec.max_bytes)  # type: ignore[arg-type]
    if digest.hexdigest() != download_spec.content_sha256:
        raise DownloadError(f"{download_spec.url}: the checksum differs from that of the published file")
