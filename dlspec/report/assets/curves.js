// The learning curves of the selected runs, in one plot.

const CURVES = JSON.parse(document.getElementById("curves").textContent);
const curveOptions = { name: null, x: "epoch", isLog: false };
let curvesPlot = null;
let drawnCurves = [];

const curveNames = () => CURVES.names.filter((each) => !["epoch", "step", "seconds"].includes(each));

function startCurves() {
  const names = curveNames();
  if (names.length === 0) return byId("curves-card").remove();
  curveOptions.name = names.includes(DATA.monitor) ? DATA.monitor : names[0];
  const option = (each) => make("option", { value: each, selected: each === curveOptions.name }, each);
  replace(byId("curve-name"), names.map(option));
  replace(byId("curve-x"), ["epoch", "step", "seconds"].filter((each) => CURVES.names.includes(each)).map((each) => make("option", { value: each }, each)));
  const choose = (key, read) => (event) => {
    curveOptions[key] = read(event.target);
    drawCurves();
  };
  byId("curve-name").addEventListener("change", choose("name", (input) => input.value));
  byId("curve-x").addEventListener("change", choose("x", (input) => input.value));
  byId("curve-log").addEventListener("change", choose("isLog", (input) => input.checked));
  byId("pick-best").addEventListener("click", () => {
    state.picked.clear();
    pick(shownRows().slice(0, 10), true);
  });
  byId("pick-shown").addEventListener("click", () => pick(shownRows(), true));
  byId("pick-none").addEventListener("click", () => {
    state.picked.clear();
    pick([], true);
  });
  onChange("picked theme", drawCurves);
  onChange("hovered", () => curvesPlot?.redraw());
  pick(ROWS[state.view].slice().sort(byRank).slice(0, 5), true);
}

const byRank = (a, b) => {
  const at = DATA.results.indexOf(DATA.monitor);
  return at < 0 ? 0 : compareValues(a.results[at], b.results[at], DATA.mode === "max");
};

function curveOf(run) {
  const curve = CURVES.runs[run];
  const values = curve?.[curveOptions.name];
  const places = curve?.[curveOptions.x];
  if (!values || !places) return null;
  const points = values.map((value, at) => [places[at], value]).filter(([x, y]) => isNumber(x) && isNumber(y) && (!curveOptions.isLog || y > 0));
  return points.length ? { run, points, row: ROWS.runs[run] } : null;
}

function drawCurves() {
  curvesPlot?.destroy();
  curvesPlot = null;
  drawnCurves = [...state.picked].map(curveOf).filter(Boolean);
  drawLegend();
  const area = byId("curves-area");
  const xs = bounds(drawnCurves.flatMap((each) => [each.points[0][0], each.points.at(-1)[0]]));
  const ys = bounds(drawnCurves.flatMap((each) => bounds(each.points.map((point) => point[1]))));
  if (!xs || !ys) return replace(area, make("p", { class: "empty" }, "Select rows in the table to see their learning curves."));
  replace(area);
  curvesPlot = plot(area, {
    height: Math.max(260, Math.min(380, innerHeight * 0.5)),
    x: { label: curveOptions.x, bounds: xs, isWhole: curveOptions.x !== "seconds" },
    y: { bounds: ys, isLog: curveOptions.isLog },
    draw: paintCurves,
    find: findCurve,
    over: (found, event) => {
      hover(found && rowOfRun(found.curve.run));
      if (!found) return showNote(event);
      const [x, y] = found.point;
      const where = `${curveOptions.name} ${shortNumber(y)}  ${curveOptions.x} ${shortValue(x)}`;
      showNote(event, make("b", {}, `run ${found.curve.row.name}`), make("br"), formatSettings(found.curve.row), make("br"), where);
    },
    click: (found) => scrollToRow(rowOfRun(found.curve.run)),
  });
}

// The row of the table that contains a run.
const rowOfRun = (run) => (state.view === "runs" ? ROWS.runs[run] : ROWS.settings[settingOf[run]]);

function paintCurves(context, toX, toY) {
  const isHovered = (curve) => state.hovered !== null && rowOfRun(curve.run)?.id === state.hovered;
  const isAnyHovered = drawnCurves.some(isHovered);
  context.lineJoin = "round";
  const many = drawnCurves.length > 60;
  const order = (a, b) => isHovered(a) - isHovered(b) || settingOf[b.run] - settingOf[a.run]; // draw the best last, above the others
  for (const curve of [...drawnCurves].sort(order)) {
    const is = isHovered(curve);
    context.strokeStyle = context.fillStyle = colourOf(curve.row);
    context.globalAlpha = isAnyHovered && !is ? 0.25 : many && !is ? 0.55 : 1;
    context.lineWidth = is ? 3 : many ? 1 : 1.75;
    const points = curve.points.flatMap(([x, y]) => [toX(x), toY(y)]);
    if (points.length > 2) path(context, points);
    else dot(context, points[0], points[1], 3);
  }
}

function findCurve(toX, toY, left, top) {
  let nearest = null;
  let least = 24;
  for (const curve of drawnCurves) {
    for (const point of curve.points) {
      const distance = Math.hypot(toX(point[0]) - left, toY(point[1]) - top);
      if (distance < least) [least, nearest] = [distance, { curve, point }];
    }
  }
  return nearest;
}

const MAX_CHIPS = 10;

function drawLegend() {
  const rows = [...new Set([...state.picked].map(rowOfRun).filter(Boolean))];
  const chip = (row) => {
    const swatch = make("i", { class: "colour" });
    swatch.style.background = colourOf(row);
    return make("button", { class: "chip", title: "remove from the plot", onclick: () => pick([row], false), onmouseenter: () => hover(row), onmouseleave: () => hover(null) }, swatch, label(row, rows.length > 1 ? rows : null));
  };
  const left = rows.length - MAX_CHIPS;
  replace(byId("legend"), rows.slice(0, MAX_CHIPS).map(chip), left > 0 ? make("span", { class: "soft" }, `and ${count(left)} more`) : null);
}
