"""How files of rows are read: the options of `data`.

Importing this imports no NumPy, so that specs are checked quickly.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

DEFAULT_MISSING = ("", "NA", "N/A", "NaN", "null")
RowFormat = Literal["csv", "tsv", "words", "jsonl", "parquet", "npz", "blocks"]
# The words for delimiters, which need no quotes in a shell.
DELIMITER_NAMES: Mapping[str, str] = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe", " ": "space"}
_DELIMITERS: Mapping[object, str] = {"\\t": "\t", **{name: delimiter for delimiter, name in DELIMITER_NAMES.items()}}
# Python's encodings of domain names and of string literals.
_NO_FILE_ENCODINGS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape"})


class ReadOptions(BaseModel):
    """How files are read. Everything has a default that fits most files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: RowFormat | None = Field(
        None, description="csv, tsv, words, jsonl, parquet, npz or blocks; null: as the file's ending says"
    )
    delimiter: str | None = Field(
        None, description="the character between cells, or comma, semicolon, tab, pipe; null: found among these"
    )
    quote: str | None = Field(
        None, description="the character around cells that contain a delimiter; 'none' for none; null: \", none in tsv"
    )
    decimal: Literal[".", ","] = Field(".", description="the decimal point of numbers: . or comma")
    thousands: str | None = Field(None, description="the character between thousands in numbers, such as comma")
    encoding: str = Field("utf-8", description="the files' encoding: utf-8, latin-1, cp1252, utf-16, ...")
    header: bool | list[str] | None = Field(
        None, description="whether the first row has the names, or the names; null: it must not look like data"
    )
    skip: int = Field(0, ge=0, description="lines to leave out at the start of each file")
    comment: str | None = Field(None, min_length=1, description="lines that start with this are left out")
    missing: list[str] = Field(
        list(DEFAULT_MISSING), description="cells that mean a missing value; spaces around a cell do not count"
    )
    bad_rows: Literal["refuse", "skip"] = Field(
        "refuse", description="what to do with rows that can't be read: refuse, or skip, which counts and lists them"
    )

    @field_validator("delimiter", "decimal", "thousands", mode="before")
    @classmethod
    def _read_word(cls, character: object) -> object:
        return _DELIMITERS.get(character, character) if isinstance(character, str) else character

    @field_validator("delimiter")
    @classmethod
    def _check_delimiter(cls, delimiter: str | None) -> str | None:
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n\0'):
            raise ValueError("the delimiter must be one character, such as ',' or ';' or tab, no quote or line break")
        return delimiter

    @field_validator("quote")
    @classmethod
    def _check_quote(cls, quote: str | None) -> str | None:
        if quote in ("none", ""):
            return "none"
        if quote is not None and (len(quote) != 1 or quote in " \t\r\n\0"):
            raise ValueError('the quote must be one character, such as "\'", or the word none')
        return quote

    @field_validator("thousands")
    @classmethod
    def _check_thousands(cls, thousands: str | None) -> str | None:
        if thousands is not None and (len(thousands) != 1 or thousands.isalnum() or thousands in "+-"):
            raise ValueError("the thousands separator must be one character, such as ',' or '.' or ' '")
        return thousands

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, encoding: str) -> str:
        try:
            "".encode(encoding)  # refuses codecs that aren't encodings of text, such as zip
            if codecs.lookup(encoding).name.replace("-", "_") in _NO_FILE_ENCODINGS:
                raise ValueError
        except (LookupError, ValueError):
            raise ValueError(f"unknown encoding '{encoding}'; choose utf-8, latin-1, cp1252, utf-16, ...") from None
        return encoding

    @field_validator("header")
    @classmethod
    def _check_header(cls, header: bool | list[str] | None) -> bool | list[str] | None:
        if isinstance(header, list) and not header:
            raise ValueError("the list of column names is empty; write false if the file has no header")
        return header
