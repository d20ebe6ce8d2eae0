// The effect of each setting on a result: one plot (slice) for each setting, sorted by the variance it explains.

const MAX_SLICES = 12;
let slices = [];

const MAX_TICKS = 8;

// Make the axis of a column: linear or logarithmic for many numbers, one tick for each value for few numbers or text.
function axisFor(column, rows) {
  const values = rows.map(column.get).filter((each) => each !== null && each !== "");
  const distinct = [...new Set(values)].sort((a, b) => a - b);
  if (!distinct.length || !distinct.every(isNumber)) return { ...makeCategoryAxis(column, [...new Set(rows.map(column.text))].sort((a, b) => compareValues(a, b, false))), isOrdered: false };
  if (column.kind === "key" && distinct.length <= MAX_TICKS) return { ...makeCategoryAxis(column, distinct.map(shortValue)), isOrdered: true };
  const isLog = column.kind === "key" ? isWide(distinct) : isWide(distinct) && distinct.at(-1) / distinct[0] > 50;
  return { column, bounds: [distinct[0], distinct.at(-1)], isLog, isOrdered: true, place: (row) => (isNumber(column.get(row)) ? column.get(row) : null) };
}

function makeCategoryAxis(column, ticks) {
  const places = new Map(ticks.map((text, at) => [text, at]));
  return { column, ticks, bounds: [0, Math.max(ticks.length - 1, 0)], place: (row) => places.get(column.text(row)) ?? null };
}

// The fraction of the variance that a setting explains, corrected for chance (adjusted R²); null with too few runs.
function explainedVariance(axis, rows) {
  const at = DATA.results.indexOf(state.result);
  const known = rows.filter((row) => axis.place(row) !== null);
  const places = [...new Set(known.map(axis.place))].sort((a, b) => a - b);
  const bin = (place) => (places.length <= 10 ? place : Math.floor((places.indexOf(place) * 8) / places.length));
  const groups = new Map();
  for (const row of known) {
    const results = row.runs.map((run) => DATA.runs[run]).filter((run) => run.status === "finished").map((run) => run.results[at]);
    groups.set(bin(axis.place(row)), [...(groups.get(bin(axis.place(row))) ?? []), ...results.filter(isNumber)]);
  }
  const all = [...groups.values()].flat();
  if (groups.size < 2 || all.length < 3 * groups.size) return null;
  const within = [...groups.values()].reduce((sum, values) => sum + squares(values), 0);
  return Math.max(0, 1 - within / (all.length - groups.size) / (squares(all) / (all.length - 1) || 1));
}

function squares(values) {
  const mean = values.reduce((sum, each) => sum + each, 0) / values.length;
  return values.reduce((sum, each) => sum + (each - mean) ** 2, 0);
}

function drawSlices() {
  slices.forEach((each) => each.destroy());
  slices = [];
  const result = resultColumn();
  const rows = shownRows().filter((row) => result && isNumber(result.get(row)));
  const axes = result ? settingColumns().map((column) => axisFor(column, rows)).filter((axis) => axis.bounds && axis.bounds[0] !== axis.bounds[1]) : [];
  const effects = axes.map((axis) => ({ axis, share: explainedVariance(axis, rows) })).sort((a, b) => (b.share ?? -1) - (a.share ?? -1));
  const figures = effects.slice(0, MAX_SLICES).map((each) => ({ ...each, area: make("div", { class: "slice-area" }) }));
  replace(byId("slices"), figures.map(({ axis, share, area }) => make("figure", {}, make("figcaption", {}, make("b", {}, axis.column.name), share === null ? null : make("span", { class: "soft" }, ` explains ${Math.round(100 * share)} % of the variance`)), area)));
  byId("slices-note").hidden = figures.length > 0;
  if (figures.length) slices = figures.map(({ axis, area }) => slice(area, axis, result, rows));
}

function slice(area, axis, result, rows) {
  const dots = rows.filter((row) => axis.place(row) !== null).map((row) => ({ row, x: axis.place(row) + jitter(axis, row, rows.length), y: result.get(row) }));
  return plot(area, {
    height: 210,
    isSmall: true,
    x: axis,
    y: axisFor(result, rows),
    draw: (context, toX, toY) => paintSlice(context, toX, toY, dots, axis, result),
    find: (toX, toY, left, top) => nearestDot(dots, toX, toY, left, top),
    over: (found, event) => {
      hover(found && found.row);
      if (found) showNote(event, make("b", {}, `${result.name} ${result.text(found.row)}`), make("br"), label(found.row));
      else showNote(event);
    },
    click: (found) => {
      pick([found.row], !isPicked(found.row));
      scrollToRow(found.row);
    },
  });
}

// Many dots at one tick are moved apart a little; each always by the same distance.
const jitter = (axis, row, rows) => (axis.ticks && rows > 12 ? (((row.id * 7919) % 101) / 101 - 0.5) * 0.3 : 0);

function paintSlice(context, toX, toY, dots, axis, result) {
  paintMeans(context, toX, toY, dots, axis);
  for (const { row, x, y } of dots) {
    const [left, top] = [toX(x), toY(y)];
    const is = row.id === state.hovered;
    context.fillStyle = context.strokeStyle = isMarked(row) ? colourOf(row) : theme.accent;
    context.globalAlpha = is || isMarked(row) ? 1 : dots.length > 200 ? 0.3 : 0.5;
    const deviation = row.deviations[DATA.results.indexOf(result.name)];
    if (isNumber(deviation) && dots.length <= 60) path(context, [left, toY(y - deviation), left, toY(y + deviation)]);
    dot(context, left, top, is ? 6 : isMarked(row) ? 4.5 : 3);
  }
}

const isMarked = (row) => areFewPicked() && isPicked(row);

// Draw a line through the medians, which outliers hardly affect.
function paintMeans(context, toX, toY, dots, axis) {
  const groups = new Map();
  for (const { row, y } of dots) groups.set(axis.place(row), [...(groups.get(axis.place(row)) ?? []), y]);
  if (groups.size > 20) return;
  const middle = (values) => {
    values.sort((a, b) => a - b);
    return (values[(values.length - 1) >> 1] + values[values.length >> 1]) / 2;
  };
  const points = [...groups].sort((a, b) => a[0] - b[0]).map(([x, values]) => [toX(x), toY(middle(values))]);
  context.strokeStyle = theme.soft;
  context.lineWidth = 1.5;
  context.globalAlpha = 0.9;
  if (!axis.isOrdered) points.forEach(([x, y]) => path(context, [x - 14, y, x + 14, y]));
  else path(context, points.flat());
  context.lineWidth = 1;
}

function nearestDot(dots, toX, toY, left, top) {
  let [nearest, least] = [null, 12];
  for (const each of dots) {
    const distance = Math.hypot(toX(each.x) - left, toY(each.y) - top);
    if (distance < least) [nearest, least] = [each, distance];
  }
  return nearest;
}

function startEffects() {
  if (!DATA.results.length || !DATA.keys.length) return byId("effects-card").remove();
  replace(byId("effect-result"), DATA.results.map((each) => make("option", { value: each, selected: each === state.result }, each)));
  byId("effect-result").addEventListener("change", (event) => {
    state.result = event.target.value;
    drawSlices();
    drawParallel();
  });
  onChange("rows theme", drawSlices);
  onChange("picked hovered", () => slices.forEach((each) => each.redraw()));
  drawSlices();
}
