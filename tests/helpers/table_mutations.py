"""Damaged CSV files, and a reader of CSV that shares nothing with dlspec's or the csv module's."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from unicodedata import normalize

Record = list[str]


class Malformed(ValueError):
    """A quote that is not closed, or text after a closing quote."""


def read_strictly(text: str, delimiter: str) -> list[Record]:
    """Read CSV as RFC 4180 describes it, character by character; spaces before a quote and empty lines are left out."""
    records: list[Record] = []
    at, size = 0, len(text)
    while at < size:
        cells: Record = []
        start = at
        while True:
            cell, at = _read_cell(text, at, delimiter)
            cells.append(cell)
            if at < size and text[at] == delimiter:
                at += 1
                continue
            break
        if text[start:at].strip(" \t") or len(cells) > 1:
            records.append(cells)
        at += 2 if text.startswith("\r\n", at) else 1
    return records


def _read_cell(text: str, at: int, delimiter: str) -> tuple[str, int]:
    """Return a cell, and where it ends."""
    while text.startswith(" ", at):
        at += 1
    ends = (delimiter, "\r", "\n")
    if not text.startswith('"', at):
        end = at
        while end < len(text) and text[end] not in ends:
            end += 1
        return text[at:end], end
    cell, at = [], at + 1
    while at < len(text):
        if text.startswith('""', at):
            cell.append('"')
            at += 2
        elif text[at] == '"':
            if at + 1 < len(text) and text[at + 1] not in ends:
                raise Malformed("text after a closing quote")
            return "".join(cell), at + 1
        else:
            cell.append(text[at])
            at += 1
    raise Malformed("a quote is not closed")


def clean_record(cells: Sequence[str], missing: Sequence[str]) -> list[str | None]:
    """Return the cells as dlspec keeps them."""
    bare = [normalize("NFC", cell.strip()) for cell in cells]
    return [None if cell in missing else cell for cell in bare]


def write_table(random_numbers: random.Random, delimiter: str, line_end: str) -> str:
    """Return a correct CSV file with quotes, line breaks in cells, missing cells, and accents in both normal forms."""
    cells = ["1", "2.5", "", "NA", "yes", " x ", "Ünal", "cafe\u0301", "Łódź", "5 inches", 'in"side', "-1"]
    cells += ['"a, b; c"', '"say ""hi"""', '"two\nlines"', ' "spaced"', '""']
    columns = random_numbers.randint(2, 5)
    lines = [[f"name {number}" if number % 2 else f"c{number}" for number in range(columns)]]
    lines += [[random_numbers.choice(cells) for _ in range(columns)] for _ in range(random_numbers.randint(1, 12))]
    return line_end.join(delimiter.join(line) for line in lines) + line_end


Mutation = Callable[[random.Random, bytes], bytes]


def _pick(random_numbers: random.Random, content: bytes) -> int:
    return random_numbers.randrange(len(content) + 1)


def _insert(*pieces: bytes) -> Mutation:
    def mutate(random_numbers: random.Random, content: bytes) -> bytes:
        at = _pick(random_numbers, content)
        return content[:at] + random_numbers.choice(pieces) + content[at:]

    return mutate


def _cut_end(random_numbers: random.Random, content: bytes) -> bytes:
    return content[: _pick(random_numbers, content)]


def _cut_out(random_numbers: random.Random, content: bytes) -> bytes:
    at = _pick(random_numbers, content)
    return content[:at] + content[at + random_numbers.randint(1, 8) :]


def _move_quote(random_numbers: random.Random, content: bytes) -> bytes:
    places = [at for at, byte in enumerate(content) if byte == ord('"')]
    if not places:
        return content
    at = random_numbers.choice(places)
    return _insert(b'"')(random_numbers, content[:at] + content[at + 1 :])


def _swap_cells(random_numbers: random.Random, content: bytes) -> bytes:
    delimiter = max((b",", b";", b"\t", b"|"), key=content.count)
    lines = content.split(b"\n")
    at = random_numbers.randrange(len(lines))
    cells = lines[at].split(delimiter)
    random_numbers.shuffle(cells)
    lines[at] = delimiter.join(cells)
    return b"\n".join(lines)


def _swap_lines(random_numbers: random.Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    random_numbers.shuffle(lines)
    return b"\n".join(lines)


def _encode(*encodings: str) -> Mutation:
    def mutate(random_numbers: random.Random, content: bytes) -> bytes:
        text = content.decode("utf-8", "replace")
        return text.encode(random_numbers.choice(encodings), "replace")

    return mutate


def _change_line_ends(random_numbers: random.Random, content: bytes) -> bytes:
    at = _pick(random_numbers, content)
    return content[:at] + content[at:].replace(b"\n", random_numbers.choice([b"\r", b"\r\n", b"\n\n"]))


def _flip_byte(random_numbers: random.Random, content: bytes) -> bytes:
    at = _pick(random_numbers, content)
    return content[:at] + bytes([random_numbers.randrange(256)]) + content[at + 1 :]


MUTATIONS: Sequence[Mutation] = (
    _cut_end,
    _cut_out,
    _move_quote,
    _swap_cells,
    _swap_lines,
    _change_line_ends,
    _flip_byte,
    _encode("latin-1", "cp1252", "utf-16", "utf-16-le", "utf-8-sig", "utf-32"),
    _insert(b'"', b'""', b"'", b"\\"),
    _insert(b",", b";", b"\t", b"|"),
    _insert(b"\n", b"\r", b"\r\n", b" ", b"\x0c", b"\xe2\x80\xa8", b"\xc2\xa0"),
    _insert(b"\xff", b"\xc3", b"\x00", b"\xef\xbb\xbf", b"\x1a", b"#"),
)


def mutate_table(random_numbers: random.Random, content: bytes) -> bytes:
    """Damage a file in one to three ways."""
    for _ in range(random_numbers.randint(1, 3)):
        content = random_numbers.choice(MUTATIONS)(random_numbers, content)
    return content
