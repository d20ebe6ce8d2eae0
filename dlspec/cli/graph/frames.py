"""The frames around the boxes of a picture: one for each block or container that is worth showing."""

from __future__ import annotations

from dlspec.cli.graph.network_picture import NetworkPicture, find_container


def find_frame(name: str, picture: NetworkPicture) -> str:
    """Find the innermost block or container around a box that is drawn as a frame.

    A Sequential has a frame only if it represents multiple copies.
    """
    container = find_container(name, picture.container_types)
    while container and picture.container_types[container] == "Sequential" and container not in picture.copies:
        container = find_outer_frame(container, picture)
    return container


def find_outer_frame(container: str, picture: NetworkPicture) -> str:
    """Find the frame around a block; an empty name if there is none."""
    outer = container.rpartition(".")[0]
    return find_frame(outer, picture) if outer else ""


def find_inner_frame(container: str, name: str, picture: NetworkPicture) -> str:
    """Find the block directly in another one that is `container` or contains it.

    Args:
        container: name of a block
        name: name of the block around it; the empty name is the whole network
        picture: the picture of both

    Returns:
        The name of the block; an empty one if `container` is not inside `name`.
    """
    before = ""
    while container and container != name:
        before, container = container, find_outer_frame(container, picture)
    return before if container == name else ""
