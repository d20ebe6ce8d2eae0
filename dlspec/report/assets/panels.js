// The panels of the page without plots: the counts, the best result, failures and networks.

function drawHeader() {
  document.title = DATA.title;
  byId("title").textContent = DATA.title;
  const counts = new Map();
  for (const run of DATA.runs) counts.set(run.status, (counts.get(run.status) ?? 0) + 1);
  const badges = [...counts].map(([status, number]) => {
    const text = `${count(number)} ${status}`;
    return status === "failed" || status === "refused" ? make("a", { class: "badge bad", href: "#failures" }, text) : make("span", { class: `badge ${status}` }, text);
  });
  const better = DATA.mode === "max" ? "higher is better" : "lower is better";
  replace(byId("counts"), make("span", { class: "badge" }, plural(DATA.runs.length, "run")), badges, make("span", { class: "soft" }, `${DATA.monitor}: ${better}`), make("span", { class: "soft" }, `written ${DATA.written}`), DATA.note ? make("span", { class: "badge" }, DATA.note) : null);
}

function drawBest() {
  const best = DATA.best === null ? null : DATA.runs[DATA.best];
  if (!best) return replace(byId("best"), make("p", { class: "empty" }, "No run is finished yet."));
  const row = ROWS.settings[settingOf[DATA.best]];
  const at = DATA.results.indexOf(DATA.monitor);
  const number = (name, index) => make("div", { class: "figure" }, make("b", {}, withDeviation(row.results[index], row.deviations[index])), make("span", { class: "soft" }, name));
  const others = DATA.results.map((name, index) => [name, index]).filter(([, index]) => index !== at && row.results[index] !== null).slice(0, 5);
  const keys = DATA.keys.map((key, index) => (key.is_seed ? null : [key.name, shortValue(row.values[index])])).filter((each) => each && each[1] !== "");
  const runs = row.runs.length > 1 ? `mean ± standard deviation over ${row.finished} runs with different seeds; the best is run ${best.name}` : `run ${best.name}`;
  replace(
    byId("best"),
    make("div", { class: "figures" }, at >= 0 ? number(DATA.monitor, at) : null, others.map(([name, index]) => number(name, index))),
    make("p", { class: "soft" }, runs, best.took.parameters === null ? "" : `; ${count(best.took.parameters)} parameters`, best.page ? [" · ", make("a", { href: best.page }, "its page")] : null),
    keys.length ? make("dl", { class: "keys" }, keys.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)))) : null,
    best.rerun ? make("p", { class: "soft tight" }, "Train this run again:") : null,
    best.rerun ? command(best.rerun) : null,
  );
}

// Failures are grouped by message, the most frequent first.
function drawFailures() {
  const groups = new Map();
  for (const run of DATA.runs) {
    if (run.status === "failed" || run.status === "refused" || run.error) groups.set(run.error || run.status, [...(groups.get(run.error || run.status) ?? []), run]);
  }
  if (!groups.size) return byId("failures").remove();
  const one = (run) => make("li", {}, make("b", {}, run.name), " ", make("span", { class: `status ${run.status}` }, run.status), " ", make("code", {}, run.overrides.join(" ")));
  const group = ([message, runs]) => make("details", { open: groups.size <= 3 && runs.length <= 5 }, make("summary", {}, make("span", { class: "message" }, message), make("span", { class: "soft" }, ` ${plural(runs.length, "run")}`)), make("ul", {}, runs.map(one)));
  replace(byId("failures-list"), [...groups].sort((a, b) => b[1].length - a[1].length).map(group));
}

function drawNetworks() {
  if (!DATA.networks.length) return byId("networks").remove();
  const at = DATA.results.indexOf(DATA.monitor);
  const best = (network) => {
    const results = network.runs.map((run) => DATA.runs[run].results[at]).filter(isNumber);
    const range = bounds(results);
    return range ? `best ${DATA.monitor} ${shortNumber(range[DATA.mode === "max" ? 1 : 0])}` : "";
  };
  const largest = Math.max(...DATA.networks.map((each) => each.parameters ?? 0), 1);
  replace(byId("networks-list"), DATA.networks.map((network) => {
    const bar = make("i", { class: "bar" });
    bar.style.width = `${Math.max(1, (100 * (network.parameters ?? 0)) / largest)}%`;
    const parameters = network.parameters === null ? "" : plural(network.parameters, "parameter");
    return make("details", {}, make("summary", {}, make("b", {}, network.name || "network"), make("span", {}, parameters), make("span", { class: "soft" }, plural(network.runs.length, "run")), make("span", { class: "soft" }, best(network)), make("span", { class: "track" }, bar)), make("pre", {}, network.spec));
  }), DATA.more_networks ? make("p", { class: "soft" }, `and ${count(DATA.more_networks)} more`) : null);
}
