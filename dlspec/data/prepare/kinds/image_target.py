"""The target `image`: an image to predict, such as a sharper or coloured one."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from dlspec.data.prepare.kinds.image import ImageSettings
from dlspec.data.prepare.kinds.kind import TARGET_KINDS, Role, register_kind


@register_kind("image", TARGET_KINDS)
class ImageTarget(ImageSettings):
    """An image to predict."""

    role: ClassVar[Role] = "target"
    scales: ClassVar[tuple[str, ...]] = ("unit", "half")

    missing: Literal["refuse", "drop"] = Field("refuse", description="refuse a row without an image, or drop it")
