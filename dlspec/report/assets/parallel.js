// Parallel coordinates: one line for each row, one axis for each setting, and the result as the last axis.
// Dragging along an axis filters the table.

const TOP = 44;
const BOTTOM = 18;
const parallel = { axes: [], lines: [], drag: null };

function drawParallel() {
  const canvas = byId("parallel");
  if (!canvas) return;
  const result = resultColumn();
  const rows = ROWS[state.view].filter((row) => result && isNumber(result.get(row)));
  const axes = [...settingColumns(), result].filter(Boolean).map((column) => axisFor(column, rows));
  parallel.axes = axes.filter((axis) => axis.bounds && axis.bounds[0] !== axis.bounds[1]);
  byId("parallel-figure").hidden = parallel.axes.length < 2;
  if (parallel.axes.length < 2) return;
  const width = Math.max(canvas.parentElement.clientWidth, 120 * parallel.axes.length);
  resizeCanvas(canvas, width, 320);
  placeAxes(width, 320);
  parallel.lines = makeLines(rows, result);
  paintParallel();
}

function resizeCanvas(canvas, width, height) {
  const ratio = devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
}

function placeAxes(width, height) {
  const last = parallel.axes.length - 1;
  parallel.axes.forEach((axis, at) => {
    const scale = axis.isLog ? Math.log : (value) => value;
    const [least, most] = axis.bounds.map(scale);
    axis.x = 50 + (at / last) * (width - 120);
    axis.toY = (value) => height - BOTTOM - ((scale(value) - least) / (most - least)) * (height - TOP - BOTTOM);
    axis.toValue = (y) => {
      const value = least + ((height - BOTTOM - y) / (height - TOP - BOTTOM)) * (most - least);
      return axis.isLog ? Math.exp(value) : value;
    };
  });
}

// Make the lines of the rows. A row without a number on an axis of numbers passes below that axis.
function makeLines(rows, result) {
  const order = [...rows].sort((a, b) => compareValues(a.results[DATA.results.indexOf(result.name)], b.results[DATA.results.indexOf(result.name)], isMoreBetter(result.name)));
  return order.map((row, rank) => ({
    row,
    share: order.length > 1 ? rank / (order.length - 1) : 0,
    points: parallel.axes.flatMap((axis) => {
      const place = axis.place(row);
      return [axis.x, place === null ? 320 - 4 : axis.toY(place)];
    }),
  })).reverse();
}

// The spec says whether higher is better for the monitored result; for other results it is guessed from the name.
const isMoreBetter = (name) => (name === DATA.monitor ? DATA.mode === "max" : !/loss|error|perplexity|bits/i.test(name));

function paintParallel() {
  const canvas = byId("parallel");
  if (!canvas || !parallel.axes.length) return;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  const shown = new Set(shownRows());
  const level = (line) => (line.row.id === state.hovered ? 3 : !shown.has(line.row) ? 0 : isMarked(line.row) ? 2 : 1);
  const lines = parallel.lines.map((line) => [level(line), line]).sort((a, b) => a[0] - b[0]);
  for (const [at, line] of lines) paintLine(context, line, at, lines.length);
  context.globalAlpha = 1;
  parallel.axes.forEach((axis) => paintAxis(context, axis));
}

function paintLine(context, line, level, lines) {
  const isSpecial = level >= 2;
  context.strokeStyle = level === 0 ? theme.line : level === 3 ? theme.text : mixColours(theme.best, theme.worst, line.share);
  context.globalAlpha = level === 0 ? 0.25 : isSpecial ? 1 : lines > 200 ? 0.4 : 0.75;
  context.lineWidth = level === 3 ? 3 : level === 2 ? 2 : 1;
  context.beginPath();
  const points = line.points;
  context.moveTo(points[0], points[1]);
  for (let at = 2; at < points.length; at += 2) {
    const middle = (points[at - 2] + points[at]) / 2;
    context.bezierCurveTo(middle, points[at - 1], middle, points[at + 1], points[at], points[at + 1]);
  }
  context.stroke();
}

function paintAxis(context, axis) {
  const [low, high] = axis.bounds.map(axis.toY);
  context.strokeStyle = theme.soft;
  context.lineWidth = 1;
  path(context, [axis.x, low, axis.x, high]);
  context.font = "600 12px system-ui, sans-serif";
  context.textAlign = "center";
  context.fillStyle = theme.text;
  context.fillText(fitKey(context, axis.column.name, 112), axis.x, 16);
  context.font = "11px system-ui, sans-serif";
  context.textAlign = "left";
  let last = Infinity;
  for (const [value, text] of marks(axis).sort((a, b) => a[0] - b[0])) {
    const y = axis.toY(value) + 4;
    if (last - y < 11) continue; // labels would overlap
    drawTextWithHalo(context, fitText(context, text, 90), axis.x + 6, y);
    last = y;
  }
  paintBrush(context, axis);
}

function marks(axis) {
  if (axis.ticks) {
    const every = Math.ceil(axis.ticks.length / 14);
    return axis.ticks.map((text, at) => [at, text === "" ? "–" : text]).filter(([at]) => at % every === 0);
  }
  const [least, most] = axis.bounds;
  const values = [...new Set(parallel.lines.length ? parallel.lines.map((line) => axis.place(line.row)).filter(isNumber) : [])];
  if (values.length <= 8) return values.map((value) => [value, shortNumber(value)]);
  const at = (share) => (axis.isLog ? least * (most / least) ** share : least + share * (most - least));
  return [0, 0.25, 0.5, 0.75, 1].map(at).map((value) => [value, shortNumber(value, 3)]);
}

function drawTextWithHalo(context, text, x, y) {
  context.lineWidth = 4;
  context.lineJoin = "round";
  context.strokeStyle = theme.card;
  context.strokeText(text, x, y);
  context.fillText(text, x, y);
}

function fitText(context, text, width) {
  const fits = (each) => context.measureText(each).width <= width;
  if (fits(text)) return text;
  let kept = text.slice(0, 40);
  while (kept && !fits(`${kept}…`)) kept = kept.slice(0, -1);
  return `${kept}…`;
}

// Shorten a key that is too long to its last parts, such as `params.width`.
function fitKey(context, key, width) {
  const parts = key.split(".");
  while (parts.length > 1 && context.measureText(parts.join(".")).width > width) parts.shift();
  return fitText(context, parts.join("."), width);
}

function paintBrush(context, axis) {
  if (parallel.drag?.axis !== axis && !state.filters.has(axis.column.name)) return;
  const [from, to] = parallel.drag?.axis === axis ? [parallel.drag.from, parallel.drag.to] : findBrushedRange(axis) ?? [null, null];
  if (from === null) return;
  context.globalAlpha = 0.25;
  context.fillStyle = theme.accent;
  context.fillRect(axis.x - 9, Math.min(from, to), 18, Math.max(Math.abs(to - from), 3));
  context.globalAlpha = 1;
  context.strokeStyle = theme.accent;
  context.lineWidth = 1;
  context.strokeRect(axis.x - 9, Math.min(from, to), 18, Math.max(Math.abs(to - from), 3));
}

// The vertical range of the rows that match an axis's filter.
function findBrushedRange(axis) {
  const test = filterOf(state.filters.get(axis.column.name));
  const passing = test ? parallel.lines.filter(({ row }) => test(axis.column.get(row), axis.column.text(row)) && axis.place(row) !== null) : [];
  const range = bounds(passing.map(({ row }) => axis.toY(axis.place(row))));
  return range && [range[0] - 6, range[1] + 6];
}

const axisAt = (x) => parallel.axes.find((axis) => Math.abs(axis.x - x) < 24);

function nearestLine(x, y) {
  let [nearest, least] = [null, 8];
  const shown = new Set(shownRows());
  const after = parallel.axes.findIndex((axis) => axis.x >= x);
  for (const line of after < 1 ? [] : parallel.lines) {
    if (!shown.has(line.row)) continue;
    const [x0, y0, x1, y1] = line.points.slice(2 * after - 2, 2 * after + 2);
    const distance = Math.abs(curveAt(x0, y0, x1, y1, x) - y);
    if (distance <= least) [nearest, least] = [line, distance];
  }
  return nearest;
}

// The height at x of the line between two axes: a Bézier curve, solved for x by bisection.
function curveAt(x0, y0, x1, y1, x) {
  const wanted = (x - x0) / (x1 - x0);
  let [low, high] = [0, 1];
  for (let turn = 0; turn < 20; turn++) {
    const t = (low + high) / 2;
    const reached = 1.5 * t * (1 - t) + t ** 3;
    if (reached < wanted) low = t;
    else high = t;
  }
  return y0 + (y1 - y0) * (3 * low ** 2 - 2 * low ** 3);
}

function filterByBrush({ axis, from, to }) {
  if (Math.abs(to - from) < 5) return writeFilter(axis.column, "");
  const [low, high] = [axis.toValue(Math.max(from, to)), axis.toValue(Math.min(from, to))];
  if (!axis.ticks) return writeFilter(axis.column, `${Number(low.toPrecision(3))}..${Number(high.toPrecision(3))}`);
  const chosen = axis.ticks.filter((_, at) => at >= low - 0.2 && at <= high + 0.2);
  return writeFilter(axis.column, chosen.length ? `=${chosen.join("|")}` : "");
}

function startParallel() {
  const canvas = byId("parallel");
  if (!canvas) return;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    const [x, y] = place(event);
    const axis = axisAt(x);
    if (!axis) return;
    canvas.setPointerCapture(event.pointerId);
    parallel.drag = { axis, from: y, to: y };
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = place(event);
    canvas.style.cursor = axisAt(x) ? "ns-resize" : "default";
    if (parallel.drag) {
      parallel.drag.to = y;
      return paintParallel();
    }
    const line = axisAt(x) ? null : nearestLine(x, y);
    hover(line && line.row);
    if (line) showNote(event, make("b", {}, `${state.result} ${resultColumn().text(line.row)}`), make("br"), label(line.row));
    else showNote(event);
  });
  const end = (event) => {
    if (parallel.drag) filterByBrush(parallel.drag);
    else if (event.type === "pointerup") {
      const line = nearestLine(...place(event));
      if (line) pick([line.row], !isPicked(line.row));
    }
    parallel.drag = null;
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", () => (parallel.drag = null));
  canvas.addEventListener("pointerleave", (event) => {
    hover(null);
    showNote(event);
  });
  new ResizeObserver(() => canvas.parentElement.clientWidth !== parallel.width && ((parallel.width = canvas.parentElement.clientWidth), drawParallel())).observe(canvas.parentElement);
  onChange("view theme", drawParallel);
  onChange("rows picked hovered", paintParallel);
  drawParallel();
}
