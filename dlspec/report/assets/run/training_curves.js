// The learning curves: a panel for each metric, with the training and the validation in one plot.

const CURVES = JSON.parse(byId("curves").textContent);
const PLACES = ["epoch", "step", "seconds"];
const MAX_PANELS = 12;
const curveOptions = { x: "epoch", isLog: false };
let curvePanels = [];

// The curves by metric: `train/loss` and `val/loss` are one panel. The monitored metric comes first, the learning rate last.
function groupCurves() {
  const groups = new Map();
  for (const name of CURVES.names.filter((each) => !PLACES.includes(each))) {
    if (!CURVES.curves[name].some(isNumber)) continue;
    const metric = name.replace(/^(train|val)\//, "");
    groups.set(metric, [...(groups.get(metric) ?? []), name]);
  }
  const rank = (metric) => (groups.get(metric).includes(DATA.monitor) ? 0 : /^lr(\/|$)/.test(metric) ? 3 : metric === "loss" ? 1 : 2);
  return [...groups].sort(([a], [b]) => rank(a) - rank(b)).slice(0, MAX_PANELS);
}

function startCurves() {
  const places = PLACES.filter((each) => CURVES.names.includes(each));
  if (groupCurves().length === 0 || places.length === 0) return byId("curves-card").remove();
  curveOptions.x = places[0];
  replace(byId("curve-x"), places.map((each) => make("option", { value: each }, each)));
  byId("curve-x").addEventListener("change", (event) => {
    curveOptions.x = event.target.value;
    drawCurves();
  });
  byId("curve-log").addEventListener("change", (event) => {
    curveOptions.isLog = event.target.checked;
    drawCurves();
  });
  drawCurves();
}

// All figures are on the page before the first plot is drawn, because a plot needs the width of its column.
function drawCurves() {
  curvePanels.forEach((each) => each.destroy());
  const panels = groupCurves().map(makeCurvePanel).filter(Boolean);
  replace(byId("curves-area"), panels.map((each) => each.figure));
  curvePanels = panels.map(drawCurvePanel);
}

function pointsOf(name) {
  const [places, values] = [CURVES.curves[curveOptions.x], CURVES.curves[name]];
  return values.map((value, at) => [places[at], value]).filter(([x, y]) => isNumber(x) && isNumber(y) && (!curveOptions.isLog || y > 0));
}

function makeCurvePanel([metric, names]) {
  const curves = names.map((name, at) => ({ name, colour: PALETTE[at % PALETTE.length], points: pointsOf(name) })).filter((each) => each.points.length);
  if (curves.length === 0) return null;
  const legend = curves.map((each) => {
    const swatch = make("i", { class: "colour" });
    swatch.style.background = each.colour;
    return make("span", { class: "key" }, swatch, each.name);
  });
  const area = make("div", {});
  const figure = make("figure", {}, make("figcaption", {}, make("b", {}, metric), curves.length > 1 || curves[0].name !== metric ? legend : null), area);
  return { figure, area, curves };
}

function drawCurvePanel({ area, curves }) {
  const points = curves.flatMap((curve) => curve.points.map((point) => ({ curve, point })));
  return plot(area, {
    height: 200,
    isSmall: true,
    x: { label: curveOptions.x, bounds: bounds(points.map((each) => each.point[0])), isWhole: curveOptions.x !== "seconds" },
    y: { bounds: bounds(points.map((each) => each.point[1])), isLog: curveOptions.isLog },
    draw: (context, toX, toY) => paintCurves(context, toX, toY, curves),
    find: (toX, toY, left, top) => nearestPoint(points, (each) => each.point, toX, toY, left, top),
    over: (found, event) => (found ? showNote(event, make("b", {}, found.curve.name), ` ${shortNumber(found.point[1])}`, make("br"), `${curveOptions.x} ${shortValue(found.point[0])}`) : showNote(event)),
    click: () => {},
  });
}

// The epoch whose weights were kept as the best ones has a vertical line.
function paintCurves(context, toX, toY, curves) {
  const at = (CURVES.curves.epoch ?? []).indexOf(DATA.best_epoch);
  const best = at < 0 ? null : CURVES.curves[curveOptions.x][at];
  if (isNumber(best)) paintLine(context, [toX(best), -9999, toX(best), 9999]);
  context.lineJoin = "round";
  context.lineWidth = 1.75;
  for (const { colour, points } of curves) {
    context.strokeStyle = context.fillStyle = colour;
    const flat = points.flatMap(([x, y]) => [toX(x), toY(y)]);
    if (flat.length > 2) path(context, flat);
    else dot(context, flat[0], flat[1], 3);
  }
}

function paintLine(context, points) {
  context.save();
  context.strokeStyle = theme.soft;
  context.lineWidth = 1;
  context.setLineDash([4, 4]);
  path(context, points);
  context.restore();
}

// The item whose point is the nearest to the pointer, if it is near.
function nearestPoint(items, pointOf, toX, toY, left, top) {
  let [nearest, least] = [null, 24];
  for (const item of items) {
    const [x, y] = pointOf(item);
    const distance = Math.hypot(toX(x) - left, toY(y) - top);
    if (distance < least) [least, nearest] = [distance, item];
  }
  return nearest;
}
