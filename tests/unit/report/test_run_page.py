"""`run.html`: what it shows of a run, in a real browser; what strangers wrote is text; nothing leaves the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dlspec.errors import UserError
from dlspec.report import write_report
from dlspec.report.network_description import (
    MAX_BOXES,
    DescribedLayer,
    DrawnArrow,
    DrawnBox,
    DrawnFrame,
    NetworkDescription,
)
from dlspec.report.records import read_record
from dlspec.report.run_page import write_run_page
from dlspec.report.run_page_data import make_run_data
from helpers.chromium import PROGRAM, Page, chromium
from helpers.evaluation_files import (
    CLASSES,
    LABELS,
    NUMBERS,
    PICTURE,
    PIXELS,
    TWO_CLASSES,
    make_evaluation,
    make_png,
    write_evaluation_file,
)
from helpers.run_folders import SPEC, write_run

needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")
HOSTILE = "</script><script>window.hacked = 1</script><img src=http://example.com/x onerror=hacked=1>\u2028'\"&amp;"
NETWORK = NetworkDescription(
    layers=(DescribedLayer("0", "Flatten", "(64) features"), DescribedLayer("1", "Linear", "(10) features", 650, 640)),
    totals=("650 parameters, 0.01 MiB",),
    boxes=(
        DrawnBox("<input >", "image", "end", details=("(1, 8, 8)",)),
        DrawnBox("0", "Flatten", "other", frame="block"),
        DrawnBox("1", "Linear", "linear", ("out_features 10",), ("650 parameters",), "block"),
        DrawnBox("<output out>", "out", "end"),
    ),
    frames=(DrawnFrame("block", "Sequential × 2"),),
    arrows=(DrawnArrow("<input >", "0"), DrawnArrow("0", "1", "(64)"), DrawnArrow("1", "<output out>")),
)
CURVES = {
    "epoch": [1, 2], "step": [10, 20], "train/loss": [2.0, 1.0], "val/loss": [1.8, 1.1], "train/accuracy": [0.5, 0.8],
    "val/accuracy": [0.6, 0.7], "lr": [0.01, 0.001],
}  # fmt: skip
METRICS = [{name: values[at] for name, values in CURVES.items()} for at in range(2)]


def make_run(folder: Path, evaluation: Any = None, **result: Any) -> Path:
    """A run with every file that the page shows."""
    write_run(folder, **result)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in METRICS))
    environment = {"python": "3.11", "packages": {"torch": "2.13"}, "command": ["dlspec", "a b"], "devices": []}
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "predictions.png").write_bytes(make_png(PIXELS))
    write_evaluation_file(folder, evaluation)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def opened(browser: Page) -> Iterator[Callable[..., Page]]:
    """Opens the page of a run; in the end nothing was asked of anybody, and nothing went wrong."""

    def call(folder: Path, network: NetworkDescription = NETWORK, width: int = 1280, is_dark: bool = False) -> Page:
        browser.requests.clear()
        browser.refused.clear()
        browser.complaints.clear()
        browser.size(width, 900, is_dark)
        browser.open(write_run_page(folder, network))
        return browser

    yield call
    assert (browser.complaints, browser.refused) == ([], [])
    assert [each for each in browser.requests.values() if not each.startswith(("file:///", "data:image/png;"))] == []


def text_of(page: Page, name: str) -> str:
    found: str = page.ask(f"document.getElementById('{name}').innerText")
    return found


@needs_chromium
def test_what_a_page_shows(opened, tmp_path: Path) -> None:
    by = {"column": "country", "groups": [
        {"value": "DE", "rows": 20, "metrics": {"accuracy": {"value": 0.9, "low": 0.8, "high": 1.0}}},
        {"value": "", "rows": 13, "metrics": {"accuracy": {"value": 0.99}}},
    ]}  # fmt: skip
    page = opened(make_run(tmp_path / "run", make_evaluation(by=by)))
    assert page.ask("document.title") == str(tmp_path / "run")
    results = text_of(page, "results")
    assert (
        results.startswith("0.9400\naccuracy · 0.9000 to 0.9700") and "test split, 33 rows, 95 % intervals" in results
    )
    assert "val/loss" in results and "650" in results
    assert "best checkpoint (epoch 2), 95 % intervals from 200 resamples of 33 rows" in text_of(page, "metrics")
    assert re.sub(r"\s+", " ", text_of(page, "groups")).startswith(
        "country rows accuracy accuracy 0.800 1 DE 20 0.9000"
    )
    assert "(empty)" in text_of(page, "groups")
    assert page.ask("curvePanels.length") == 3
    assert page.ask("groupCurves()") == [
        ["loss", ["train/loss", "val/loss"]], ["accuracy", ["train/accuracy", "val/accuracy"]], ["lr", ["lr"]],
    ]  # fmt: skip
    assert "650 parameters, 0.01 MiB" in text_of(page, "network")
    assert page.ask("[...document.querySelectorAll('svg .box title')].map((each) => each.textContent)") == [
        "image", "0", "1", "out",
    ]  # fmt: skip
    assert page.ask("document.querySelectorAll('svg .arrow path').length") == 3
    assert page.ask("[...document.querySelectorAll('#pictures img')].map((each) => each.naturalWidth)") == [8]
    assert page.ask("document.querySelector('#spec pre').textContent") == (tmp_path / "run/spec.yaml").read_text()
    environment = text_of(page, "environment")
    assert "torch\n2.13" in environment and "dlspec 'a b'" in environment and "devices" not in environment
    assert f"python -m dlspec run={tmp_path / 'run'}" in text_of(page, "use")
    sections = page.ask("[...document.querySelectorAll('nav a')].map((each) => each.textContent)")
    assert sections == ["Results", "Learning curves", "Metrics", "By country", "Target digit", "Network",
                        "Drawn by the training", "Use this run", "Spec", "Environment"]  # fmt: skip


@needs_chromium
def test_a_click_on_the_confusion_matrix_lists_its_errors(opened, tmp_path: Path) -> None:
    page = opened(make_run(tmp_path / "run"))
    rows = "[...document.querySelectorAll('.wrong-answer')].map((each) => each.querySelector('figcaption').innerText)"
    assert page.ask(rows) == ["8 97.0 % instead of 3\nrow 7", "5 90.0 % instead of 3\nrow 9"]
    assert page.ask("[...document.querySelectorAll('.wrong-answer img')].every((each) => each.naturalWidth === 8)")
    cells = "[...document.querySelectorAll('.matrix button')].map((each) => each.textContent)"
    assert page.ask(cells) == ["10", "1", "1", "", "12", "", "", "", "9"]
    page.click(*page.middle("document.querySelectorAll('.matrix button')[1]"))
    assert page.ask(rows) == ["5 90.0 % instead of 3\nrow 9"]
    assert "True class 3, predicted 5: 1 row. Show all" in text_of(page, "targets")
    page.click(*page.middle("[...document.querySelectorAll('button')].find((each) => each.textContent === 'Show all')"))
    assert len(page.ask(rows)) == 2


@needs_chromium
def test_kinds_of_targets(opened, tmp_path: Path) -> None:
    many = {**CLASSES, "classes": [f"c{at}" for at in range(60)], "errors": [],
            "confusion": [[int(row == 3 and column == 9) * 5 + 7 * (row == column) for column in range(60)]
                          for row in range(60)]}  # fmt: skip
    maps = {"truth": PICTURE["image"], "prediction": PICTURE["image"]}
    pixels = {**CLASSES, "errors": [{"row": 5, "id": "", **maps, "error": 0.25, "input": PICTURE}]}
    targets = {"label": TWO_CLASSES, "price": NUMBERS, "tags": LABELS, "many": many, "mask": pixels}
    page = opened(make_run(tmp_path / "run", make_evaluation(targets=targets)))
    cards = page.ask("[...document.querySelectorAll('.target')].map((each) => each.innerText)")
    advice = (
        "Predict spam above a probability of 0.310 rather than 0.5: "
        "this gives the best f1 on the validation split, 0.9000 instead of 0.8500."
    )
    assert advice in cards[0] and "input=FILE output=predictions.csv threshold=0.31" in cards[0]
    assert "ham 80.0 % instead of spam" in cards[0] and "which is <b>not</b> HTML" in cards[0]
    assert "Predictions against true values" in cards[1]
    assert cards[1].splitlines()[-1].split() == ["2", "2", "1", "1", "30", "21.5"]
    assert re.sub(r"\s+", " ", cards[2]).count("cat 4 75.0 % 75.0 % dog 2 0.0 %") == 1
    assert cards[2].splitlines()[-1].split() == ["4", "cat|dog", "0.7000", "x"]
    assert re.sub(r"\s+", " ", cards[3]).count("true class prediction rows c3 c9 5") == 1
    assert "The samples of which the largest part is wrong, 1 shown." in cards[4]
    assert [each for each in cards[4].splitlines()[-4:] if each] == ["truth", "prediction", "25.0 % wrong", "row 5"]
    alts = page.ask("[...document.querySelectorAll('.answer img')].map((each) => [each.alt, each.naturalWidth])")
    assert alts == [["truth of row 5", 8], ["prediction of row 5", 8]]
    assert page.ask("[...document.querySelectorAll('.matrix')].at(-1).querySelector('button:enabled')") is None
    assert page.ask("document.querySelectorAll('.target canvas').length") == 3


@needs_chromium
def test_a_threshold_that_is_worse_on_the_evaluated_rows_is_not_advised(opened, tmp_path: Path) -> None:
    threshold = {**TWO_CLASSES["threshold"], "evaluated_score": 0.7, "evaluated_default_score": 0.75}
    page = opened(
        make_run(tmp_path / "run", make_evaluation(targets={"label": {**TWO_CLASSES, "threshold": threshold}}))
    )
    card = page.ask("document.querySelector('.target').innerText")
    assert "but a worse one on the rows of this evaluation, 0.7000 instead of 0.7500" in card
    assert "output=predictions.csv" not in card


@needs_chromium
def test_what_strangers_wrote_is_text(opened, tmp_path: Path) -> None:
    hostile = {**CLASSES, "kind": HOSTILE, "classes": [HOSTILE[:60] + "a", HOSTILE[:60] + "b"],
               "confusion": [[1, 2], [3, 4]], "threshold": {"value": 0.3, "metric": HOSTILE, "split": HOSTILE},
               "errors": [{"row": 1, "id": HOSTILE, "truth": HOSTILE[:60] + "a", "prediction": HOSTILE[:60] + "b",
                           "input": {HOSTILE: HOSTILE, "picture": "data:image/svg+xml,<svg onload='hacked=1'/>",
                                     "url": "http://example.com/x.png"}}]}  # fmt: skip
    evaluation = make_evaluation(
        checkpoint=HOSTILE, data={"split": HOSTILE, "path": HOSTILE, "rows": 1},
        targets={HOSTILE: hostile, "__proto__": LABELS},
        metrics={HOSTILE: {"value": 1.0}, "__proto__": {"value": 2.0}},
        by={"column": HOSTILE, "groups": [{"value": HOSTILE, "metrics": {HOSTILE: {"value": 0.5}}}]},
    )  # fmt: skip
    spec = {**SPEC, HOSTILE: HOSTILE, "data": {"type": HOSTILE}, "imports": [HOSTILE, "my_layers"]}
    folder = make_run(tmp_path / "<b>run", evaluation, spec=spec, overrides=[f"model={HOSTILE}"], error=HOSTILE,
                      status="failed", monitor=HOSTILE, stop_reason=HOSTILE)  # fmt: skip
    (folder / "environment.json").write_text(json.dumps({HOSTILE: HOSTILE, "packages": {HOSTILE: HOSTILE}}))
    (folder / "samples.txt").write_text(HOSTILE)
    (folder / "metrics.jsonl").write_text(json.dumps({"epoch": 1, HOSTILE[:80]: 1.0, "__proto__": 2}) + "\n")
    (folder / f"predictions_{HOSTILE.replace('/', '')[:60]}.png").write_bytes(make_png(PIXELS))
    box = DrawnBox(HOSTILE, HOSTILE, HOSTILE, (HOSTILE,), (HOSTILE,), HOSTILE)
    network = NetworkDescription((DescribedLayer(*[HOSTILE] * 3),), (HOSTILE,), (box,), (DrawnFrame(*[HOSTILE] * 3),),
                                 (DrawnArrow(*[HOSTILE] * 3),))  # fmt: skip
    page = opened(folder, network)
    page.ask("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    page.click(*page.middle("document.querySelectorAll('.matrix button')[1]"))
    assert page.ask("window.hacked === undefined && document.querySelectorAll('script').length === 3")
    assert page.ask("[...document.images].every((each) => each.src.startsWith('data:image/png;base64,'))")
    assert page.ask("document.body.innerText.includes('<img src=http://example.com/x')")
    assert page.ask("[...document.links].every((each) => each.getAttribute('href').startsWith('#'))")
    page = opened(folder, NetworkDescription(problem=HOSTILE))
    assert "could not be built here" in text_of(page, "network")
    assert page.ask("window.hacked === undefined && document.querySelectorAll('script').length === 3")


@needs_chromium
@pytest.mark.parametrize(("width", "is_dark"), [(1280, False), (390, True)])
def test_it_fits_a_laptop_and_a_phone(opened, tmp_path: Path, width: int, is_dark: bool) -> None:
    targets = {"digit": CLASSES, "label": TWO_CLASSES, "price": NUMBERS}
    page = opened(make_run(tmp_path / "run", make_evaluation(targets=targets)), width=width, is_dark=is_dark)
    assert page.ask("document.documentElement.scrollWidth") <= width
    back = page.ask("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", back))) < 200) is is_dark
    assert len(page.send("Page.printToPDF", printBackground=True)["data"]) > 20_000
    page.ask("dispatchEvent(new Event('beforeprint'))")
    assert page.ask("theme.card") == "#ffffff"
    page.ask("dispatchEvent(new Event('afterprint'))")
    assert page.ask("theme.card") == ("#181e27" if is_dark else "#ffffff")


@needs_chromium
def test_a_run_of_which_little_is_left(opened, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "spec.yaml").write_text("{")
    page = opened(folder, NetworkDescription(problem="spec.yaml can't be read"))
    assert "This run has no results yet." in text_of(page, "results")
    assert f"python -m dlspec evaluate run={folder}" in text_of(page, "metrics")
    assert "spec.yaml can't be read" in text_of(page, "network")
    assert page.ask("byId('curves-card')") is None


# ---- without a browser -----------------------------------------------------------------------------------------------


def test_a_page_of_somebody_else_is_kept(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "run.html").write_text("mine")
    with pytest.raises(UserError, match=r"run.html' exists and is not a report of dlspec; move it to another place"):
        write_run_page(folder, NETWORK)
    assert (folder / "run.html").read_text() == "mine"
    (folder / "run.html").unlink()
    assert write_run_page(folder, NETWORK).read_text() == write_run_page(folder, NETWORK).read_text()


def test_only_regular_files_of_a_run_are_read(tmp_path: Path) -> None:
    folder, outside = make_run(tmp_path / "run"), tmp_path / "outside"
    outside.write_bytes(make_png(PIXELS) + b"secret")
    for name in ("spec.yaml", "environment.json", "samples.txt", "predictions.png", "metrics.jsonl", "result.json"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(outside)
    data = make_run_data(read_record(folder), NETWORK)
    assert (data["spec"], data["samples"], data["pictures"], data["environment"]) == ("", "", [], [])


def test_lines_of_a_spec_with_imports_name_them(tmp_path: Path) -> None:
    spec = {**SPEC, "imports": ["my.layers", "x]; rm -rf /"]}
    folder = make_run(tmp_path / "it's mine", spec=spec, test={})
    data = make_run_data(read_record(folder), NETWORK)
    lines = {each["about"]: each["text"] for each in data["commands"]}
    run = f"""'run="{tmp_path}/it'"'"'s mine"'"""
    assert data["evaluate_command"] == f"python -m dlspec evaluate {run} 'imports=[my.layers]'"
    words = "split=validation output=predictions.csv"
    assert lines["Predict the validation split"] == f"python -m dlspec predict {run} 'imports=[my.layers]' {words}"
    assert lines["Predict in Python"] == f"import dlspec\nimport my.layers\n\nmodel = dlspec.predictor({str(folder)!r})"


def test_too_many_boxes_are_not_drawn() -> None:
    boxes = tuple(DrawnBox(str(at), "Linear", "linear") for at in range(MAX_BOXES + 1))
    assert NetworkDescription(boxes=boxes[1:]).to_json()["boxes"] != []
    assert NetworkDescription(boxes=boxes, arrows=(DrawnArrow("0", "1"),)).to_json()["arrows"] == []


@pytest.mark.parametrize("name", ["run", "javascript:alert(1)", "a b#c?d%20", "<img src=x>", "\udc80"])
def test_the_report_of_a_sweep_links_to_the_pages_of_its_runs(name: str, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    write_run_page(make_run(sweep / name), NETWORK)
    write_run(sweep / "other")
    (sweep / "other/run.html").symlink_to(sweep / name / "run.html")
    write_report([sweep], tmp_path)
    (text,) = re.findall(r'id="data">(.*?)</script>', (tmp_path / "report.html").read_text())
    links = {each["name"]: each["page"] for each in json.loads(text)["runs"]}
    assert links.pop("other") is None
    (link,) = links.values()
    assert re.fullmatch(r"\./[\w./%~-]+/run\.html", link, re.ASCII)


@needs_chromium
def test_the_link_opens_the_page(browser: Page, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    write_run_page(make_run(sweep / "a#b?c% d"), NETWORK)
    write_report([sweep], sweep)
    browser.size(1280, 900)
    browser.open(sweep / "report.html")
    browser.click(*browser.middle("document.querySelector('#rows a')"))
    browser.open(Path(browser.ask("decodeURIComponent(location.pathname)")))
    assert browser.ask("document.title") == str(sweep / "a#b?c% d")
