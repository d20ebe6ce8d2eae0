// The table. Clicking a column's name sorts it, the fields below the names filter it, and clicking a row selects the row.

const ROWS_AT_FIRST = 300;
let areAllRowsDrawn = false;
let drawnRows = new Map();

function drawHead() {
  const view = byId("view");
  if (view) for (const button of view.children) button.setAttribute("aria-pressed", String(button.value === state.view));
  replace(byId("head"), make("tr", {}, make("th", { class: "pick", scope: "col" }, pickAll()), columns().map(headOf)), filtersRow());
}

// The button that selects all visible rows, or none of them.
function pickAll() {
  return make("button", { class: "swatch", id: "pick-all", "aria-label": "select all visible rows", onclick: () => {
    const rows = shownRows();
    pick(rows, !rows.every(isPicked));
  } });
}

function headOf(column) {
  const sort = state.sort?.name === column.name ? state.sort : null;
  const order = sort ? (sort.isDescending ? "descending" : "ascending") : "none";
  return make("th", { scope: "col", class: kindOf(column), "aria-sort": order }, make("button", { title: `sort by ${column.name}`, onclick: () => sortBy(column) }, column.name));
}

// Columns of numbers, which are aligned to the right, get the class "number".
function kindOf(column) {
  const values = ROWS[state.view].map(column.get);
  const areNumbers = values.some(isNumber) && values.every((each) => isNumber(each) || each === null || each === "");
  return areNumbers ? `${column.kind} number` : column.kind;
}

// The first click sorts in ascending order, the second in descending order, the third by rank again.
function sortBy(column) {
  const sort = state.sort;
  if (sort?.name !== column.name) state.sort = { name: column.name, isDescending: false };
  else state.sort = sort.isDescending ? null : { name: column.name, isDescending: true };
  cached = null; // the same rows in another order: the plots do not change
  drawHead();
  drawRows();
  [...byId("head").querySelectorAll("button")].find((each) => each.textContent === column.name)?.focus();
}

function filtersRow() {
  const input = (column) => make("input", {
    type: "search",
    value: state.filters.get(column.name) ?? "",
    "aria-label": `filter by ${column.name}`,
    placeholder: "filter",
    title: "Examples: >0.1   <=3   0.1..0.5   =mlp|cnn (exactly one of these)   mlp (contains mlp)   !mlp (does not contain mlp)",
    oninput: (event) => setFilter(column.name, event.target.value),
  });
  return make("tr", { class: "filters" }, make("th", { class: "pick" }), columns().map((column) => make("th", { class: column.kind }, input(column))));
}

function setFilter(name, text) {
  if (text.trim()) state.filters.set(name, text);
  else state.filters.delete(name);
  changed("rows");
}

// Set a filter from outside the table, and show it in the table's field.
function writeFilter(column, text) {
  setFilter(column.name, text);
  const at = columns().indexOf(column);
  byId("head").querySelectorAll("input")[at].value = text;
}

function drawRows() {
  const rows = shownRows();
  const shown = areAllRowsDrawn ? rows : rows.slice(0, ROWS_AT_FIRST);
  drawnRows = new Map();
  replace(byId("rows"), shown.map(rowOf));
  const word = state.view === "settings" ? "setting" : "run";
  const all = ROWS[state.view].length;
  replace(byId("shown"), rows.length === all ? plural(all, word) : `${count(rows.length)} of ${plural(all, word)}`, DATA.more_keys ? `; ${count(DATA.more_keys)} more settings differ, see leaderboard.csv` : null);
  byId("clear").hidden = state.filters.size === 0 && !state.search;
  byId("more").hidden = shown.length === rows.length;
  byId("more").textContent = `Show all ${count(rows.length)} rows`;
  byId("none").hidden = rows.length > 0;
  drawPicked();
}

function rowOf(row) {
  const cell = (column) => {
    const text = column.text(row);
    const kind = column.kind === "status" ? `status ${row.status}` : isNumber(column.get(row)) ? `${column.kind} number` : column.kind;
    const content = column.kind === "name" && row.page ? make("a", { href: row.page }, text) : text;
    return make("td", { class: kind, title: text.length > 24 ? text : null }, content);
  };
  const mark = make("button", { class: "swatch", "aria-label": `select ${label(row)}` });
  const element = make("tr", { "data-id": row.id }, make("td", { class: "pick" }, mark), columns().map(cell));
  drawnRows.set(row.id, { row, element, mark });
  return element;
}

function drawPicked() {
  for (const { row, element, mark } of drawnRows.values()) {
    const is = isPicked(row);
    element.classList.toggle("picked", is);
    mark.setAttribute("aria-pressed", String(is));
    mark.style.background = is ? colourOf(row) : "";
  }
}

function drawHovered() {
  byId("rows").querySelector(".hovered")?.classList.remove("hovered");
  drawnRows.get(state.hovered)?.element.classList.add("hovered");
}

function rowAt(event) {
  const element = event.target.closest("tr");
  return element && drawnRows.get(Number(element.dataset.id))?.row;
}

function scrollToRow(row) {
  drawnRows.get(row.id)?.element.scrollIntoView({ block: "nearest", behavior: "smooth" });
}

function startTable() {
  const body = byId("rows");
  body.addEventListener("click", (event) => {
    const isText = !getSelection().isCollapsed || event.target.closest("a"); // text to copy, or a link to follow
    const row = isText ? null : rowAt(event);
    if (row) pick([row], !isPicked(row));
  });
  body.addEventListener("mouseover", (event) => hover(rowAt(event)));
  body.addEventListener("mouseleave", () => hover(null));
  byId("search").addEventListener("input", (event) => {
    state.search = event.target.value;
    changed("rows");
  });
  byId("more").addEventListener("click", () => {
    areAllRowsDrawn = true;
    drawRows();
  });
  byId("clear").addEventListener("click", clearFilters);
  if (HAS_SEEDS) replace(byId("view"), ["settings", "runs"].map((each) => make("button", { value: each, onclick: () => setView(each) }, each === "settings" ? "Mean over seeds" : "Every run")));
  else byId("view").remove();
  onChange("rows", drawRows);
  onChange("picked", drawPicked);
  onChange("hovered", drawHovered);
  drawHead();
  drawRows();
}

function clearFilters() {
  state.filters.clear();
  state.search = byId("search").value = "";
  changed("rows");
  drawHead();
}

function setView(view) {
  state.view = view;
  state.hovered = null;
  if (!columns().some((each) => each.name === state.sort?.name)) state.sort = null;
  for (const name of [...state.filters.keys()]) if (!columns().some((each) => each.name === name)) state.filters.delete(name);
  cached = null;
  changed("rows", "view", "picked");
  drawHead();
}
