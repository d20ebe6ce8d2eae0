"""TensorBoard's event files, written without importing TensorBoard.

A file is a sequence of records. A record consists of the length of its content (8 bytes), a checksum of the length, the
content, and a checksum of the content. The content is an `Event` message in protobuf's format
(tensorboard/compat/proto/event.proto). TensorBoard's own writer produces the same bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from functools import cache

FORMAT_VERSION = b"brain.Event:2"
# Wire types of protobuf fields.
_VARINT, _EIGHT_BYTES, _LENGTH_DELIMITED, _FOUR_BYTES = 0, 1, 2, 5


def encode_header(seconds: float) -> bytes:
    """Encode the first record of a file; `seconds` is the time since 1970."""
    return _encode_record(_encode_event(seconds, 0) + _encode_bytes(3, FORMAT_VERSION))


def encode_scalars(results: Mapping[str, float], step: int, seconds: float) -> bytes:
    """Encode the record of some results.

    Args:
        results: values by the names of their curves.
        step: the training step, the x axis of the curves.
        seconds: time since 1970.
    """
    values = [_encode_bytes(1, _encode_name(name) + _pack_float(value)) for name, value in results.items()]
    return _encode_record(_encode_event(seconds, step) + _encode_bytes(5, b"".join(values)))


def _encode_event(seconds: float, step: int) -> bytes:
    wall_time = _encode_key(1, _EIGHT_BYTES) + struct.pack("<d", seconds)
    return wall_time + (_encode_key(2, _VARINT) + _encode_varint(step) if step else b"")


def _encode_record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + _compute_masked_crc(length) + content + _compute_masked_crc(content)


def _encode_key(field: int, kind: int) -> bytes:
    return bytes([field << 3 | kind])


def _encode_bytes(field: int, content: bytes) -> bytes:
    return _encode_key(field, _LENGTH_DELIMITED) + _encode_varint(len(content)) + content


@cache
def _encode_name(name: str) -> bytes:
    """Encode the name of a value, and the key of the number that follows."""
    return _encode_bytes(1, name.encode()) + _encode_key(2, _FOUR_BYTES)


def _pack_float(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:
        return struct.pack("<f", math.copysign(math.inf, value))


def _encode_varint(number: int) -> bytes:
    """Encode an integer in 7 bits per byte, lowest first; the eighth bit is set in all bytes except the last."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _compute_masked_crc(content: bytes) -> bytes:
    """Compute the CRC-32C of some bytes, rotated and offset as in TensorFlow's record format."""
    crc, table = 0xFFFFFFFF, _make_crc_table()
    for byte in content:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@cache
def _make_crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table
