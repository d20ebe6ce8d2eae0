"""`report.html`: one file that opens anywhere, asks nothing of any server, and can't be made to by what specs say."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from dlspec.runs.io import finite

ASSETS = Path(__file__).parent / "assets"
STYLES = ("uplot/uPlot.min.css", "page.css")
SCRIPTS = "base table plot curves effects parallel panels main".split()
BEGINNING = b"<!doctype html>\n<!-- dlspec report -->"


def page(title: str, data: Any, curves: Any) -> str:
    """The page's HTML, with the data in it.

    Only the script whose hash the policy names runs, whatever got into the page, and nothing is loaded or sent.
    """
    return Template(_text("page.html")).substitute(
        policy=_policy(),
        title=escape(title.encode(errors="replace").decode()),
        style=_style(),
        script=_script(),
        data=in_script(data),
        curves=in_script(curves),
    )


def in_script(value: Any) -> str:
    """`value` as JSON that ends no script element: no `<`, and nothing beyond ASCII, U+2028 among it."""
    text = json.dumps(finite(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _policy() -> str:
    directives = (
        "default-src 'none'",
        f"script-src '{_hash(_script())}'",
        f"style-src '{_hash(_style())}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return "; ".join(directives)


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def _style() -> str:
    return "\n".join(_text(name) for name in STYLES)


@cache
def _script() -> str:
    licence = "/*!\nuPlot\n" + _text("uplot/LICENSE").strip() + "\n*/\n"
    return "\n".join([licence, _text("uplot/uPlot.iife.min.js"), *(_text(f"{name}.js") for name in SCRIPTS)])


@cache
def _text(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
