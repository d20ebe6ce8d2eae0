"""Statistics of images that were measured before, kept in the cache's folder by the images' content. Without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

from dlspec.data.images.cache_files import STATISTICS_ENDING, find_image_cache_folder
from dlspec.runs.io import read_json_object, write_json

FORMAT_KEY, FORMAT = "dlspec_image_statistics", 1
Channels = tuple[tuple[float, ...], tuple[float, ...]]  # the mean and the deviation of each channel


def name_statistics(recipe: str, content_keys: Sequence[bytes]) -> str:
    """Name the statistics of some images: by how they are read, and what their files contain."""
    digest = blake2b(recipe.encode(), digest_size=16)
    for key in content_keys:
        digest.update(len(key).to_bytes(2, "little") + key)
    return digest.hexdigest()


def read_statistics(name: str, channels: int) -> Channels | None:
    """Read statistics; None if they were not kept, or are damaged.

    Args:
        name: from `name_statistics`
        channels: how many channels the images have
    """
    found = read_json_object(find_image_cache_folder() / f"{name}{STATISTICS_ENDING}") or {}
    mean, deviation = found.get("mean"), found.get("deviation")
    if found.get(FORMAT_KEY) != FORMAT or not isinstance(mean, list) or not isinstance(deviation, list):
        return None
    numbers = [*mean, *deviation]
    is_right = all(isinstance(each, float) and math.isfinite(each) for each in numbers)
    if not is_right or len(mean) != channels or len(deviation) != channels or min(deviation) <= 0:
        return None
    return tuple(mean), tuple(deviation)


def keep_statistics(name: str, measured: Channels) -> None:
    """Keep statistics; without a folder that can be written they are measured again."""
    folder = find_image_cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mean, deviation = measured
        content = {FORMAT_KEY: FORMAT, "mean": list(mean), "deviation": list(deviation)}
        write_json(folder / f"{name}{STATISTICS_ENDING}", content)
    except OSError:
        return
