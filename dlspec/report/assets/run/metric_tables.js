// Metrics with their intervals: as a table, and for the groups of a column.

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const hasInterval = (metric) => isNumber(metric.low) && isNumber(metric.high);

function formatInterval(metric) {
  return hasInterval(metric) ? `${shortNumber(metric.low)} to ${shortNumber(metric.high)}` : "";
}

// An interval as a bar on a scale from `least` to `most`, with a mark at the value.
function intervalBar(metric, [least, most]) {
  const place = (value) => `${Math.min(100, Math.max(0, (100 * (value - least)) / (most - least || 1)))}%`;
  const mark = make("i", { class: "mark" });
  mark.style.left = place(metric.value);
  if (!hasInterval(metric)) return make("span", { class: "interval" }, mark);
  const bar = make("i", { class: "range" });
  bar.style.left = place(metric.low);
  bar.style.right = `${100 - parseFloat(place(metric.high))}%`;
  return make("span", { class: "interval" }, bar, mark);
}

// Shares lie between 0 and 1, and so do the ends of their scale.
const isShare = (metric) => [metric.value, metric.low ?? 0, metric.high ?? 1].every((each) => each >= 0 && each <= 1) && !/loss|error/i.test(metric.name);

function plainTable(heads, rows, kinds = []) {
  const cell = (tag) => (content, at) => make(tag, { class: kinds[at], ...(tag === "th" ? { scope: "col" } : {}) }, content);
  return make("div", { class: "scroller", tabindex: "0", role: "region" }, make("table", { class: "plain" }, make("thead", {}, make("tr", {}, heads.map(cell("th")))), make("tbody", {}, rows.map((row) => make("tr", {}, row.map(cell("td")))))));
}

function describeEvaluation(evaluation) {
  const { data, bootstrap } = evaluation;
  const words = [
    data.path ? data.path : data.split ? `${data.split} split` : null,
    data.rows === null ? null : plural(data.rows, "row"),
    data.left_out ? `${plural(data.left_out, "row")} left out` : null,
    evaluation.checkpoint ? `${evaluation.checkpoint} checkpoint${evaluation.epoch === null ? "" : ` (epoch ${evaluation.epoch})`}` : null,
    bootstrap && bootstrap.resamples ? `${bootstrap.level === null ? "" : `${percentRound(bootstrap.level)} `}intervals from ${plural(bootstrap.resamples, "resample")} of ${bootstrap.rows === null ? "the rows" : plural(bootstrap.rows, "row")}` : null,
    evaluation.created ? `evaluated ${evaluation.created.replace("T", " ").slice(0, 16)}` : null,
  ];
  return words.filter(Boolean).join(", ");
}

// What was evaluated, in few words.
function nameEvaluation({ data, bootstrap }) {
  const rows = data.rows === null ? "" : `, ${plural(data.rows, "row")}`;
  const level = bootstrap && isNumber(bootstrap.level) ? `, ${percentRound(bootstrap.level)} intervals` : "";
  return `${data.path || (data.split ? `${data.split} split` : "evaluated")}${rows}${level}`;
}

const percentRound = (share) => `${Number((100 * share).toFixed(1))} %`;

function drawMetrics() {
  const { evaluation } = DATA;
  if (!evaluation) {
    return replace(byId("metrics"), make("p", { class: "soft" }, "This run has not been evaluated. To see metrics with intervals, the worst errors and the calibration here, evaluate it and write this page again:"), command(DATA.evaluate_command), command(DATA.report_command));
  }
  const rows = evaluation.metrics.map((metric) => [metric.name, shortNumber(metric.value), formatInterval(metric), isShare(metric) ? intervalBar(metric, [0, 1]) : ""]);
  const hasBars = evaluation.metrics.some(isShare);
  replace(
    byId("metrics"),
    make("p", { class: "soft" }, describeEvaluation(evaluation)),
    rows.length ? plainTable(["metric", "value", evaluation.metrics.some(hasInterval) ? "interval" : "", hasBars ? scaleHead("0", "1") : ""], rows, ["", "number", "number", "bar-cell"]) : make("p", { class: "empty" }, "The evaluation contains no metrics."),
  );
}

const scaleHead = (least, most) => make("span", { class: "scale-head" }, make("span", {}, least), make("span", {}, most));

// Each group has its metrics, and the first metric as a bar, so that groups can be compared at a glance.
function drawGroups() {
  const by = DATA.evaluation?.by;
  if (!by || by.groups.length === 0) return byId("groups-card").remove();
  const names = [...new Set(by.groups.flatMap((group) => group.metrics.map((each) => each.name)))].slice(0, 6);
  const first = mainMetric(names);
  const metricOf = (group, name) => group.metrics.find((each) => each.name === name);
  const ends = by.groups.map((group) => metricOf(group, first)).filter(Boolean).flatMap((each) => [each.low ?? each.value, each.high ?? each.value]);
  const scale = bounds(ends) ?? [0, 1];
  const rows = by.groups.map((group) => {
    const metric = metricOf(group, first);
    const cells = names.map((name) => metricOf(group, name)).map((each) => (each ? make("span", { title: formatInterval(each) || null }, shortNumber(each.value)) : ""));
    return [group.value || "(empty)", group.rows === null ? "" : count(group.rows), ...cells, metric ? intervalBar(metric, scale) : ""];
  });
  byId("groups-title").textContent = `By ${by.column}`;
  const head = make("span", {}, make("span", { class: "soft" }, first), scaleHead(shortNumber(scale[0], 3), shortNumber(scale[1], 3)));
  replace(byId("groups"), plainTable([by.column, "rows", ...names, head], rows, ["", "number", ...names.map(() => "number"), "bar-cell"]), by.more ? make("p", { class: "soft" }, `and ${plural(by.more, "more group")}`) : null);
}

// The metric to show first: the monitored one, or else the first that is not the loss.
function mainMetric(names) {
  const monitored = DATA.monitor.split("/").at(-1);
  if (monitored !== "loss" && names.includes(monitored)) return monitored;
  return names.find((each) => each !== "loss") ?? names[0];
}
