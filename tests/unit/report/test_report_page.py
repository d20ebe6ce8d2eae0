"""`report.html` in a real browser: it opens without a request, an error or markup from specs, and obeys a mouse."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dlspec.report import page_data, write_report
from dlspec.report.page import to_script_json
from dlspec.report.page_data import MAX_CURVE_NUMBERS, make_curves_data
from dlspec.report.records import read_records
from dlspec.report.run_table import RunTable
from helpers.chromium import PROGRAM, Page, chromium
from helpers.run_folders import SPEC, change_spec, write_run

needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")
HOSTILE = "</script><script>window.hacked = 1</script><img src=http://example.com/x onerror=hacked=1>\u2028'\"&amp;"
MLP = {"params": {"width": 8}, "layers": [{"Linear": 10}]}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def opened(browser: Page, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Opens the report of the runs in a folder; in the end nothing was asked of anybody, and nothing went wrong."""

    def call(folder: Path, width: int = 1300, is_dark: bool = False) -> Page:
        browser.requests.clear()
        browser.refused.clear()
        browser.complaints.clear()
        write_report([folder], folder)
        browser.size(width, 900, is_dark)
        browser.open(folder / "report.html")
        return browser

    yield call
    assert (browser.complaints, browser.refused) == ([], [])
    assert [each for each in browser.requests.values() if not each.endswith("/report.html")] == []


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Twelve jobs of two models, three learning rates and two seeds, of which one failed."""
    folder, number = tmp_path / "sweep", 0
    for model in ("mlp", "linear"):
        for lr in (0.001, 0.01, 0.1):
            for seed in (0, 1):
                loss = (1 if model == "mlp" else 2) + lr + seed / 100
                overrides = [f"model={model}", f"optimizer.lr={lr}", f"seed={seed}"]
                spec = change_spec(optimizer={"lr": lr}, seed=seed)
                spec["model"] = (
                    {"params": {"width": 8}, "layers": [{"Linear": 10}]} if model == "mlp" else SPEC["model"]
                )
                failed = {"status": "failed", "error": "train/loss became nan in epoch 2"} if number == 11 else {}
                write_run(folder / str(number), spec, [loss + 1, loss], overrides, **failed)
                number += 1
    return folder


ROWS = "[...document.querySelectorAll('#rows tr')]"


def column(page: Page, name: str) -> list[str]:
    """The texts of a column of the table, from the top."""
    texts: list[str] = page.ask(
        f"(() => {{ const at = columns().findIndex((each) => each.name === {json.dumps(name)}) + 1;"
        f"return {ROWS}.map((row) => row.children[at].textContent); }})()"
    )
    return texts


def corner(page: Page, script: str) -> tuple[float, float]:
    """Where an element's left upper corner is."""
    left, top = page.ask(f"(() => {{ const b = {script}.getBoundingClientRect(); return [b.x, b.y]; }})()")
    return left, top


def head(name: str) -> str:
    return f"[...document.querySelectorAll('#head button')].find((each) => each.textContent === {json.dumps(name)})"


def field(name: str) -> str:
    return f"document.querySelector('#head input[aria-label=\"filter by {name}\"]')"


def button(text: str) -> str:
    return f"[...document.querySelectorAll('button')].find((each) => each.textContent === {json.dumps(text)})"


@needs_chromium
def test_what_a_report_shows(opened, sweep: Path) -> None:
    page = opened(sweep)
    assert page.ask("document.title").endswith("sweep")
    assert page.ask("document.getElementById('counts').innerText").startswith("12 runs")
    best = page.ask("document.getElementById('best').innerText")
    assert "1.006 ± 0.0071" in best and f"python -m dlspec run={sweep}/0" in best
    assert column(page, "val/loss")[0] == "1.006 ± 0.0071"
    assert column(page, "runs") == ["2", "2", "2", "2", "2", "1 of 2"]
    failures = page.ask("document.getElementById('failures').innerText")
    assert (
        "train/loss became nan in epoch 2" in failures and "11 failed model=linear optimizer.lr=0.1 seed=1" in failures
    )
    networks = page.ask("document.getElementById('networks').innerText")
    assert "mlp" in networks and "650 parameters" in networks
    captions = page.ask("[...document.querySelectorAll('#slices b')].map((each) => each.textContent)")
    assert captions == ["model", "optimizer.lr"]
    assert page.ask("parallel.axes.map((axis) => axis.column.name)") == ["model", "optimizer.lr", "val/loss"]


@needs_chromium
def test_sorting_and_filtering(opened, sweep: Path) -> None:
    page = opened(sweep)
    page.click(*page.middle(head("val/loss")))
    page.click(*page.middle(head("val/loss")))
    losses = [float(each.split()[0]) for each in column(page, "val/loss")]
    assert losses == sorted(losses, reverse=True)
    assert page.ask("document.querySelector('[aria-sort=descending]').textContent") == "val/loss"
    page.type(field("model"), "mlp")
    assert column(page, "model") == ["mlp"] * 3
    page.type(field("optimizer.lr"), "0.005..0.05")
    assert column(page, "optimizer.lr") == ["0.01"]
    assert page.ask("document.getElementById('shown').textContent") == "1 of 6 settings"
    page.click(*page.middle(button("Clear filters")))
    assert len(column(page, "model")) == 6
    page.type(field("test/accuracy"), ">0.7")
    assert set(column(page, "model")) == {"mlp"}
    page.click(*page.middle(button("Clear filters")))
    page.click(*page.middle(button("Every run")))
    assert len(column(page, "run")) == 12
    page.type("document.getElementById('search')", "failed")
    assert column(page, "run") == ["11"]


FILTERS = {
    ">1": ["2", "10"], ">= 1": ["1", "2", "10"], "<2": ["0.5", "1"], "1..2": ["1", "2"], "=1|10": ["1", "10"],
    "1": ["1", "10"], "!1": ["0.5", "2", "b", ""], "B": ["b"], "=": [""], "  ": ["0.5", "1", "2", "10", "b", ""],
    ">x": [], "1e0": [], "=1e0": ["1"],
}  # fmt: skip


@needs_chromium
def test_filters(opened, sweep: Path) -> None:
    page = opened(sweep)
    page.ask("var passing = (test) => [0.5, 1, 2, 10, 'b', ''].filter((v) => !test || test(v, String(v))).map(String)")
    assert {text: page.ask(f"passing(filterOf({json.dumps(text)}))") for text in FILTERS} == FILTERS


@needs_chromium
def test_curves_are_picked_by_click(opened, sweep: Path) -> None:
    page = opened(sweep)
    assert page.ask("drawnCurves.length") == 10  # five settings of two runs
    page.click(*page.middle(button("None")))
    assert page.ask("drawnCurves.length") == 0
    page.click(*page.middle(f"{ROWS}[1].children[1]"))
    assert page.ask("drawnCurves.map((each) => each.row.name)") == ["2", "3"]
    assert page.ask(f"{ROWS}.map((row) => row.classList.contains('picked'))") == [
        False,
        True,
        False,
        False,
        False,
        False,
    ]
    page.click(*page.middle(button("All shown")))
    assert page.ask("drawnCurves.length") == 12
    page.click(*page.middle(f"{ROWS}[0].children[1]"))
    assert page.ask("drawnCurves.length") == 10
    for select, value in (("curve-name", "lr"), ("curve-x", "seconds")):
        page.ask(f"byId('{select}').value = '{value}'; byId('{select}').dispatchEvent(new Event('change'))")
    page.settle()
    assert page.ask("drawnCurves[0].points") == [[0.5, 0.01], [1, 0.01]]


@needs_chromium
def test_hovering_tells(opened, sweep: Path) -> None:
    page = opened(sweep)
    page.middle("curvesPlot.chart.over")
    left, top = corner(page, "curvesPlot.chart.over")
    # A little below the lowest curve, because the next one is only two pixels above it.
    at = page.ask("[curvesPlot.chart.valToPos(2, 'x'), curvesPlot.chart.valToPos(0.999, 'y')]")
    page.mouse("mouseMoved", left + at[0], top + at[1])
    told = page.ask("document.querySelector('.note').innerText")
    assert told.splitlines() == ["run 0", "model=mlp  optimizer.lr=0.001", "val/loss 1.001  epoch 2"]
    assert page.ask(f"{ROWS}.map((row) => row.classList.contains('hovered'))")[0] is True
    page.mouse("mouseMoved", left - 40, top - 40)
    assert page.ask("document.querySelector('.note').hidden") is True
    page.middle("slices[0].chart.over")
    left, top = corner(page, "slices[0].chart.over")
    x, y = page.ask("[slices[0].chart.valToPos(1, 'x'), slices[0].chart.valToPos(ROWS.settings[0].results[0], 'y')]")
    page.mouse("mouseMoved", left + x, top + y)
    assert page.ask("document.querySelector('.note').innerText").startswith("val/loss 1.006")
    before = page.ask("isPicked(ROWS.settings[0])")
    page.click(left + x, top + y)
    assert page.ask("isPicked(ROWS.settings[0])") is not before


@needs_chromium
def test_dragging_along_an_axis_filters(opened, sweep: Path) -> None:
    page = opened(sweep)
    page.middle("document.getElementById('parallel')")
    left, top = page.ask(
        "(() => { const b = document.getElementById('parallel').getBoundingClientRect(); return [b.x, b.y]; })()"
    )
    x, low, high = page.ask("(() => { const a = parallel.axes[1]; return [a.x, a.toY(0), a.toY(1)]; })()")
    page.drag(left + x, top + low + 5, left + x, top + high - 5)
    assert page.ask(f"{field('optimizer.lr')}.value") == "=0.001|0.01"
    assert sorted(set(column(page, "optimizer.lr"))) == ["0.001", "0.01"]
    page.click(left + x, top + low - 20)
    assert len(column(page, "optimizer.lr")) == 6
    x, y = page.ask(
        "(() => { const l = parallel.lines.at(-1).points; return [(l[0] + l[2]) / 2, (l[1] + l[3]) / 2]; })()"
    )
    page.mouse("mouseMoved", left + x, top + y)
    assert page.ask("document.querySelector('.note').innerText").startswith("val/loss ")


@needs_chromium
def test_names_from_strangers_are_texts(opened, tmp_path: Path) -> None:
    name = HOSTILE[:80]
    for number, status in enumerate(("finished", "failed", "finished")):
        spec = {**SPEC, HOSTILE: HOSTILE + str(number), "model": {"layers": [HOSTILE, {HOSTILE: number}]}}
        told = {"monitor": name, "best": {name: 1.0, "__proto__": 1.0}, "status": status, "error": HOSTILE}
        folder = write_run(tmp_path / f"r/<b>{number}", spec, [1.0 + number], [f"model={HOSTILE}", HOSTILE], **told)
        (folder / "metrics.jsonl").write_text(json.dumps({"epoch": 1, name: 1.0, "__proto__": 2}) + "\n")
    page = opened(tmp_path / "r")
    assert page.ask("window.hacked === undefined && document.images.length === 0")
    assert page.ask("document.querySelectorAll('script').length") == 3
    assert page.ask("document.body.innerText.includes('<img src=http://example.com/x')")
    page.click(*page.middle(button("All shown")))
    page.ask("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    page.settle()
    assert page.ask("document.images.length") == 0


@needs_chromium
def test_the_policy_lets_nothing_out(browser: Page, sweep: Path) -> None:
    """What would load, send or run is refused, were it in the page."""
    write_report([sweep], sweep)
    path = sweep / "report.html"
    smuggled = (
        "<script>window.hacked = 1</script><img src='https://example.com/i.png'>"
        "<link rel=stylesheet href='https://example.com/s.css'>"
        "<svg onload='window.hacked = 1'></svg><iframe src='https://example.com/'></iframe>"
    )
    path.write_text(path.read_text().replace("<main>", f"<main>{smuggled}"))
    browser.requests.clear()
    browser.open(path)
    browser.ask("fetch('https://example.com/f').catch(() => 0)")
    browser.ask("navigator.sendBeacon('https://example.com/b')")
    assert browser.ask("window.hacked === undefined && columns().length > 0")
    assert [each for each in browser.requests.values() if "example.com" in each] == []
    assert {"https://example.com/i.png", "https://example.com/s.css"} <= set(browser.refused)


@needs_chromium
@pytest.mark.parametrize(("width", "is_dark"), [(1300, False), (1300, True), (390, False), (390, True)])
def test_it_fits_a_laptop_and_a_phone(opened, sweep: Path, width: int, is_dark: bool) -> None:
    page = opened(sweep, width, is_dark)
    assert page.ask("document.documentElement.scrollWidth") <= width
    back = page.ask("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", back))) < 200) is is_dark
    widths = page.ask("[...document.querySelectorAll('canvas')].map((each) => each.clientWidth)")
    assert len(widths) == 4 and all(each > 200 for each in widths)


@needs_chromium
def test_paper_is_light(opened, sweep: Path) -> None:
    page = opened(sweep, is_dark=True)
    assert len(page.send("Page.printToPDF", printBackground=True)["data"]) > 20_000
    page.ask("dispatchEvent(new Event('beforeprint'))")
    assert page.ask("theme.card") == "#ffffff"
    assert max(page.ask("[...document.querySelectorAll('canvas')].map((each) => each.clientWidth)")) <= 700
    page.ask("dispatchEvent(new Event('afterprint'))")
    assert page.ask("theme.card") == "#181e27"


@needs_chromium
def test_very_many_keys(opened, tmp_path: Path) -> None:
    for number in range(2):
        write_run(tmp_path / f"r/{number}", {f"key{at}": number for at in range(70)})
    page = opened(tmp_path / "r")
    assert page.ask("[DATA.keys.length, DATA.runs[0].values.length]") == [60, 60]
    assert page.ask("byId('shown').textContent") == "2 runs; 10 more settings differ, see leaderboard.csv"


@needs_chromium
@pytest.mark.parametrize("runs", ["one", "none is finished", "no curves"])
def test_small_reports(opened, tmp_path: Path, runs: str) -> None:
    for number in range(1 if runs == "one" else 2):
        folder = write_run(tmp_path / f"r/{number}", change_spec(seed=number))
        if runs == "none is finished":
            (folder / "result.json").unlink()
        if runs == "no curves":
            (folder / "metrics.jsonl").unlink()
    page = opened(tmp_path / "r")
    assert "runs" in page.ask("document.body.innerText") or runs == "one"
    assert page.ask(f"{ROWS}.length") == 1


def test_json_ends_no_script_element() -> None:
    text = to_script_json({HOSTILE: [float("nan"), 1e400, HOSTILE, "\ud800"]})
    assert text.isascii() and not set("<>&") & set(text)
    assert json.loads(text) == {HOSTILE: [None, None, HOSTILE, "\ud800"]}


def test_curves_are_thinned_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write_run(tmp_path / str(number), losses=[float(each) for each in range(100, 0, -1)])
    table = RunTable(read_records([tmp_path]))
    assert MAX_CURVE_NUMBERS > 3 * 100 * 5
    whole = make_curves_data(table)
    assert (len(whole["runs"][0]["epoch"]), set(whole["names"])) == (
        100,
        {"epoch", "step", "val/loss", "lr", "seconds"},
    )
    monkeypatch.setattr(page_data, "MAX_CURVE_NUMBERS", 500)
    thin = make_curves_data(table)["runs"][0]
    assert len(thin["epoch"]) == 26 and (thin["epoch"][0], thin["epoch"][-1], thin["val/loss"][-1]) == (1, 100, 1)
