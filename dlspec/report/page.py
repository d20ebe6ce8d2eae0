"""Make `report.html`: one file that works offline and never contacts a server, whatever specs contain."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from dlspec.runs.io import replace_non_finite

ASSETS = Path(__file__).parent / "assets"
STYLES = ("uplot/uPlot.min.css", "page.css")
SCRIPTS = "base table plot curves effects parallel panels main".split()
PAGE_START = b"<!doctype html>\n<!-- dlspec report -->"


def render_page(title: str, data: Any, curves: Any) -> str:
    """Make the HTML of the page, including its data.

    A content security policy allows only the page's own script, by its hash, and forbids loading or sending anything.

    Args:
        title: title of the page
        data: the table, from `make_table_data`
        curves: the learning curves, from `make_curves_data`

    Returns:
        The HTML.
    """
    return Template(_read_asset("page.html")).substitute(
        policy=_content_security_policy(),
        title=escape(title.encode(errors="replace").decode()),
        style=_read_styles(),
        script=_read_scripts(),
        data=to_script_json(data),
        curves=to_script_json(curves),
    )


def to_script_json(value: Any) -> str:
    """Convert a value to JSON that is safe inside a script element: only ASCII, and no `<`, `>` or `&`."""
    text = json.dumps(replace_non_finite(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _content_security_policy() -> str:
    directives = (
        "default-src 'none'",
        f"script-src '{_format_csp_hash(_read_scripts())}'",
        f"style-src '{_format_csp_hash(_read_styles())}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return "; ".join(directives)


def _format_csp_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def _read_styles() -> str:
    return "\n".join(_read_asset(name) for name in STYLES)


@cache
def _read_scripts() -> str:
    licence = "/*!\nuPlot\n" + _read_asset("uplot/LICENSE").strip() + "\n*/\n"
    return "\n".join(
        [licence, _read_asset("uplot/uPlot.iife.min.js"), *(_read_asset(f"{name}.js") for name in SCRIPTS)]
    )


@cache
def _read_asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
