// The state of the report and the rows of its table.

// ---- the state: which rows are visible, sorted and selected (picked) -------------------------------------------------

const HAS_SEEDS = DATA.settings.some((setting) => setting.runs.length > 1);
const settingOf = [];
DATA.settings.forEach((setting, number) => setting.runs.forEach((run) => (settingOf[run] = number)));

const state = {
  view: HAS_SEEDS ? "settings" : "runs",
  result: DATA.results.includes(DATA.monitor) ? DATA.monitor : DATA.results[0],
  sort: null,
  search: "",
  filters: new Map(),
  picked: new Set(),
  hovered: null,
};

// Parts of the page redraw themselves when something they show has changed: "rows", "view", "picked", "hovered", "theme".
const listeners = { rows: [], view: [], picked: [], hovered: [], theme: [] };
const onChange = (what, listener) => what.split(" ").forEach((each) => listeners[each].push(listener));
const waiting = new Set();

function changed(...what) {
  if (waiting.size === 0) {
    requestAnimationFrame(() => {
      const due = new Set([...waiting].flatMap((each) => listeners[each]));
      waiting.clear();
      cached = null;
      due.forEach((listener) => listener());
    });
  }
  what.forEach((each) => waiting.add(each));
}

// ---- rows of the table: settings (means over seeds) or runs ----------------------------------------------------------

const makeSettingRow = (number) => {
  const { runs, finished, failed, means, deviations } = DATA.settings[number];
  const run = DATA.runs[runs[0]];
  return { id: number, runs, finished, failed, values: run.values, results: means, deviations, color: number };
};

const makeRunRow = (run, number) => ({
  id: number,
  runs: [number],
  finished: run.status === "finished" ? 1 : 0,
  failed: run.status === "failed" ? 1 : 0,
  values: run.values,
  results: run.results,
  deviations: run.results.map(() => null),
  color: settingOf[number] ?? 0,
  ...run.took,
  name: run.name,
  page: run.page,
  status: run.status,
});

const ROWS = { settings: DATA.settings.map((_, number) => makeSettingRow(number)), runs: DATA.runs.map(makeRunRow) };

function allColumns(view) {
  const key = (each, at) => ({ name: each.name, kind: "key", isSeed: each.is_seed, get: (row) => row.values[at], text: (row) => shortValue(row.values[at]) });
  const keys = DATA.keys.map((each, at) => (view === "settings" && each.is_seed ? null : key(each, at))).filter(Boolean);
  const results = DATA.results.map((name, at) => ({
    name,
    kind: "result",
    get: (row) => row.results[at],
    text: (row) => withDeviation(row.results[at], row.deviations[at]),
  }));
  if (view === "settings") {
    const runs = (row) => (row.finished === row.runs.length ? String(row.finished) : `${row.finished} of ${row.runs.length}`);
    return [...keys, ...results, { name: "runs", kind: "count", get: (row) => row.finished, text: runs }];
  }
  const run = { name: "run", kind: "name", get: (row) => (/^\d+$/.test(row.name) ? Number(row.name) : row.name), text: (row) => row.name };
  const status = { name: "status", kind: "status", get: (row) => row.status, text: (row) => row.status };
  const took = [
    { name: "best epoch", get: (row) => row.best_epoch, show: count },
    { name: "parameters", get: (row) => row.parameters, show: count },
    { name: "time", get: (row) => row.seconds, show: shortTime },
  ].map((each) => ({ ...each, kind: "count", text: (row) => (isNumber(each.get(row)) ? each.show(each.get(row)) : "") }));
  const areAllDone = DATA.runs.every((each) => each.status === "finished");
  return [run, ...(areAllDone ? [] : [status]), ...keys, ...results, ...took.filter((each) => ROWS.runs.some((row) => isNumber(each.get(row))))];
}

const COLUMNS = { settings: allColumns("settings"), runs: allColumns("runs") };
const columns = () => COLUMNS[state.view];
const settingColumns = () => columns().filter((each) => each.kind === "key" && !each.isSeed);
const resultColumn = () => columns().find((each) => each.kind === "result" && each.name === state.result);

// Convert a filter to a test of values: `>0.1`, `<=3`, `0.1..0.5`, `=mlp|cnn` (exactly), `!text` (without), `text` (with).
function filterOf(text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return null;
  const range = wanted.match(/^(\S+?)\s*\.\.\s*(\S+)$/);
  if (range && !range.slice(1).some((each) => isNaN(each))) return (value) => isNumber(value) && value >= Number(range[1]) && value <= Number(range[2]);
  const compared = wanted.match(/^(<=|>=|<|>)\s*(\S+)$/);
  if (compared && !isNaN(compared[2])) {
    const limit = Number(compared[2]);
    const holds = { "<": (a) => a < limit, ">": (a) => a > limit, "<=": (a) => a <= limit, ">=": (a) => a >= limit }[compared[1]];
    return (value) => isNumber(value) && holds(value);
  }
  if (wanted.startsWith("=")) {
    const choices = wanted.slice(1).split("|").map((each) => each.trim());
    return (value, shown) => choices.includes(shown.toLowerCase()) || (isNumber(value) && choices.some((each) => each !== "" && Number(each) === value));
  }
  if (wanted.startsWith("!")) return (value, shown) => !shown.toLowerCase().includes(wanted.slice(1));
  return (value, shown) => shown.toLowerCase().includes(wanted);
}

let cached = null;

// The visible rows: those that match the filters, in the order of the table.
function shownRows() {
  if (cached) return cached;
  const all = columns();
  const tests = all.map((column) => [column, filterOf(state.filters.get(column.name) ?? "")]).filter((each) => each[1]);
  const search = state.search.trim().toLowerCase();
  const passes = (row) =>
    tests.every(([column, test]) => test(column.get(row), column.text(row))) &&
    (!search || all.some((column) => column.text(row).toLowerCase().includes(search)));
  cached = ROWS[state.view].filter(passes);
  const by = state.sort && all.find((column) => column.name === state.sort.name);
  if (by) cached.sort((a, b) => compareValues(by.get(a), by.get(b), state.sort.isDescending));
  else if (state.view === "runs" && resultColumn()) {
    const at = DATA.results.indexOf(DATA.monitor);
    if (at >= 0) cached.sort((a, b) => compareValues(a.results[at], b.results[at], DATA.mode === "max"));
  }
  return cached;
}

// Compare two values for sorting: numbers before text, and missing values last in both directions.
function compareValues(a, b, isDescending) {
  const rank = (value) => (isNumber(value) ? 0 : value === null || value === undefined || value === "" ? 2 : 1);
  if (rank(a) !== rank(b)) return rank(a) - rank(b);
  const order = isNumber(a) ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return isDescending ? -order : order;
}

// Format a row's settings in one line; if `rows` is given, only the settings that differ between these rows.
function formatSettings(row, rows = null) {
  const differs = (at) => !rows || rows.some((each) => each.values[at] !== rows[0].values[at]);
  const formatKey = (key, at) => ((key.is_seed && state.view === "settings") || row.values[at] === "" || !differs(at) ? null : `${key.name}=${shortValue(row.values[at])}`);
  return DATA.keys.map(formatKey).filter(Boolean).join("  ");
}

function label(row, rows = null) {
  const settings = formatSettings(row, rows);
  return state.view === "runs" ? `${row.name}  ${settings}` : settings || plural(row.runs.length, "run");
}

// ---- selecting (picking) rows: each selected setting gets a colour ----------------------------------------------------

const colours = new Map();

// If few settings are selected, each has its own colour; if many are, the colour shows how good they are.
function colourOf(row) {
  if (!areFewPicked()) return mixColours(theme.best, theme.worst, row.color / Math.max(DATA.settings.length - 1, 1));
  if (!colours.has(row.color)) {
    const taken = new Set([...colours].filter(([number]) => isAnyPicked(number)).map(([, at]) => at));
    const free = PALETTE.findIndex((_, at) => !taken.has(at));
    colours.set(row.color, free < 0 ? row.color % PALETTE.length : free);
  }
  return PALETTE[colours.get(row.color)];
}

let pickedSettings = 0;
const areFewPicked = () => pickedSettings <= PALETTE.length;
const isAnyPicked = (number) => (DATA.settings[number]?.runs ?? []).some((run) => state.picked.has(run));
const isPicked = (row) => row.runs.some((run) => state.picked.has(run));

function pick(rows, isWanted) {
  for (const row of rows) {
    if (isWanted && !isAnyPicked(row.color)) colours.delete(row.color);
    row.runs.forEach((run) => (isWanted ? state.picked.add(run) : state.picked.delete(run)));
  }
  pickedSettings = new Set([...state.picked].map((run) => settingOf[run])).size;
  changed("picked");
}

function hover(row) {
  const id = row ? row.id : null;
  if (state.hovered === id) return;
  state.hovered = id;
  changed("hovered");
}
