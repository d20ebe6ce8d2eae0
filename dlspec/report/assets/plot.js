// A plot with axes. uPlot handles scales, ticks and zooming; `draw` paints everything inside.

// Options: height; x and y: {label, bounds, isLog, ticks: the labels of 0, 1, 2, ...}; draw(context, toX, toY);
// find(toX, toY, left, top): what is below the pointer, in CSS pixels within the plot, or null; over(found, event);
// click(found). Returns {chart, redraw, destroy}.
function plot(parent, options) {
  const size = () => ({ width: Math.max(parent.clientWidth, 120), height: options.height });
  const { x, y } = options;
  const chart = new uPlot({
    ...size(),
    legend: { show: false },
    padding: [10, 12, 0, 0],
    cursor: { points: { show: false }, x: !x.ticks, y: !x.ticks, drag: { x: !options.isSmall, y: !options.isSmall, uni: 30, setScale: true } },
    scales: { x: scaleOf(x), y: scaleOf(y) },
    series: [{}, { paths: () => null, points: { show: false } }],
    axes: [axisOf(x, options.isSmall), { ...axisOf(y, options.isSmall), size: 54 }],
    hooks: { draw: [(u) => drawClipped(u, options.draw)] },
  }, [spread(x.bounds), spread(y.bounds)], parent);

  const found = (event) => {
    const box = chart.over.getBoundingClientRect();
    return options.find((value) => chart.valToPos(value, "x"), (value) => chart.valToPos(value, "y"), event.clientX - box.left, event.clientY - box.top);
  };
  let pressed = null;
  chart.over.addEventListener("mousemove", (event) => options.over(found(event), event));
  chart.over.addEventListener("mouseleave", (event) => options.over(null, event));
  chart.over.addEventListener("mousedown", (event) => (pressed = [event.clientX, event.clientY]));
  chart.over.addEventListener("click", (event) => {
    const wasDragged = pressed && Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) > 4;
    const hit = wasDragged ? null : found(event);
    if (hit) options.click(hit);
  });
  const watcher = new ResizeObserver(() => chart.width !== size().width && chart.setSize(size()));
  watcher.observe(parent);
  return {
    chart,
    redraw: () => chart.redraw(false, true),
    destroy: () => {
      watcher.disconnect();
      chart.destroy();
    },
  };
}

const spread = ([least, most]) => [least, most];

function scaleOf({ bounds: [least, most], isLog, ticks }) {
  if (ticks) return { time: false, range: [-0.5, ticks.length - 0.5] };
  if (isLog) {
    const wider = (most / least) ** 0.05 || 1.1;
    return { time: false, distr: 3, range: (u, low, high) => (low === least && high === most ? [least / (wider > 1 ? wider : 1.2), most * (wider > 1 ? wider : 1.2)] : [low, high]) };
  }
  const wider = (most - least) * 0.05 || Math.abs(most) * 0.1 || 1;
  return { time: false, range: (u, low, high) => (low === least && high === most ? [least - wider, most + wider] : [low, high]) };
}

const WHOLE = [1, 2, 5].flatMap((each) => [...Array(10).keys()].map((power) => each * 10 ** power)).sort((a, b) => a - b);

function axisOf({ label: name, ticks, isWhole }, isSmall) {
  const font = `${isSmall ? 11 : 12}px system-ui, sans-serif`;
  const axis = {
    stroke: () => theme.soft,
    font,
    labelFont: font,
    labelSize: 18,
    label: name || undefined,
    size: name ? 34 : 30,
    grid: { stroke: () => theme.faint, width: 1 },
    ticks: { stroke: () => theme.faint, width: 1, size: 4 },
    space: isSmall ? 40 : 50,
  };
  const short = (text) => (text.length > 14 ? `${text.slice(0, 13)}…` : text);
  if (ticks) return { ...axis, splits: () => ticks.map((_, at) => at), values: () => ticks.map(short), grid: { show: false } };
  return { ...axis, values: (u, splits) => splits.map((each) => (each === null ? "" : shortValue(Number(each.toPrecision(8))))), ...(isWhole ? { incrs: WHOLE } : {}) };
}

// Call `draw` with drawing limited to the inside of the plot, in CSS pixels.
function drawClipped(u, draw) {
  const { ctx, bbox } = u;
  const ratio = devicePixelRatio || 1;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.scale(ratio, ratio);
  draw(ctx, (value) => u.valToPos(value, "x", true) / ratio, (value) => u.valToPos(value, "y", true) / ratio);
  ctx.restore();
}

function path(context, points) {
  context.beginPath();
  for (let at = 0; at < points.length; at += 2) {
    if (at === 0) context.moveTo(points[at], points[at + 1]);
    else context.lineTo(points[at], points[at + 1]);
  }
  context.stroke();
}

function dot(context, x, y, radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}
