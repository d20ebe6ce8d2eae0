"""Make the pages: single files that work offline and never contact a server, whatever specs and results contain."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from dlspec.runs.io import replace_non_finite

ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class PageKind:
    """A kind of page: the name in its first lines, and the assets that it is made of."""

    name: str
    body: str
    styles: tuple[str, ...]
    scripts: tuple[str, ...]
    libraries: tuple[str, ...]  # scripts of others, each beside its LICENSE

    @property
    def start(self) -> bytes:
        """The beginning of the file, by which dlspec knows its own."""
        return f"<!doctype html>\n<!-- dlspec {self.name} -->".encode()


SWEEP_PAGE = PageKind(
    name="report",
    body="sweep_page.html",
    styles=("uplot/uPlot.min.css", "page.css"),
    scripts=("elements", "rows", "table", "plot", "curves", "effects", "parallel", "panels", "main"),
    libraries=("uplot/uPlot.iife.min.js",),
)
RUN_PAGE = PageKind(
    name="run",
    body="run/run_page.html",
    styles=("uplot/uPlot.min.css", "page.css", "run/run_page.css"),
    scripts=(
        "elements", "plot", "run/training_curves", "run/metric_tables", "run/worst_errors", "run/confusion",
        "run/targets", "run/network_graph", "run/run_panels", "run/run_main",
    ),
    libraries=("uplot/uPlot.iife.min.js", "dagre/dagre.min.js"),
)  # fmt: skip


def render_page(kind: PageKind, title: str, data: Any, curves: Any) -> str:
    """Make the HTML of a page, including its data.

    A content security policy allows only the page's own script, by its hash, and forbids loading or sending anything.

    Args:
        kind: which page
        title: title of the page
        data: what the page shows, from `make_table_data` or `make_run_data`
        curves: the learning curves, from `make_curves_data` or `make_run_curves`

    Returns:
        The HTML.
    """
    shown_title = escape(title.encode(errors="replace").decode())
    return Template(_read_asset("page.html")).substitute(
        kind=kind.name,
        policy=_content_security_policy(kind),
        title=shown_title,
        body=Template(_read_asset(kind.body)).substitute(title=shown_title),
        style=_read_styles(kind),
        script=_read_scripts(kind),
        data=to_script_json(data),
        curves=to_script_json(curves),
    )


def to_script_json(value: Any) -> str:
    """Convert a value to JSON that is safe inside a script element: only ASCII, and no `<`, `>` or `&`."""
    text = json.dumps(replace_non_finite(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _content_security_policy(kind: PageKind) -> str:
    directives = (
        "default-src 'none'",
        f"script-src '{_format_csp_hash(_read_scripts(kind))}'",
        f"style-src '{_format_csp_hash(_read_styles(kind))}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return "; ".join(directives)


def _format_csp_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def _read_styles(kind: PageKind) -> str:
    return "\n".join(_read_asset(name) for name in kind.styles)


@cache
def _read_scripts(kind: PageKind) -> str:
    libraries = [text for name in kind.libraries for text in (_make_licence_comment(name), _read_asset(name))]
    return "\n".join([*libraries, *(_read_asset(f"{name}.js") for name in kind.scripts)])


def _make_licence_comment(library: str) -> str:
    folder = library.partition("/")[0]
    return f"/*!\n{folder}\n{_read_asset(f'{folder}/LICENSE').strip()}\n*/\n"


@cache
def _read_asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
