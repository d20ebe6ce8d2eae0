// The panels of a run's page without plots: header, results, pictures, spec, environment, commands.

function drawHeader() {
  document.title = DATA.title;
  byId("title").textContent = DATA.title;
  replace(byId("counts"), make("span", { class: `badge ${DATA.status === "failed" ? "bad" : DATA.status}` }, DATA.status), make("span", { class: "soft" }, `written ${DATA.written}`));
}

// Links to the sections that this run has, made when all others are drawn.
function drawSections() {
  const cards = [...document.querySelectorAll("main .card")].filter((each) => each.querySelector("h2"));
  replace(byId("sections"), cards.map((card, at) => {
    card.id ||= `section-${at}`;
    return make("a", { href: `#${card.id}` }, card.querySelector("h2").textContent);
  }));
}

function drawResults() {
  const figure = (metric) => make("div", { class: "figure" }, make("b", {}, shortNumber(metric.value)), make("span", { class: "soft" }, [metric.name, formatInterval(metric)].filter(Boolean).join(" · ")));
  const from = DATA.evaluation?.metrics.length ? nameEvaluation(DATA.evaluation) : "";
  replace(
    byId("results"),
    DATA.error ? make("pre", { class: "message" }, DATA.error) : null,
    DATA.headlines.length ? make("div", { class: "figures" }, DATA.headlines.map(figure)) : make("p", { class: "empty" }, "This run has no results yet."),
    from ? make("p", { class: "soft" }, from) : null,
    make("dl", { class: "facts" }, DATA.facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)))),
  );
}

function drawPictures() {
  const { pictures, samples } = DATA;
  if (!pictures.length && !samples) return byId("pictures-card").remove();
  const isCurves = (each) => each.name === "curves.png"; // the page draws these itself
  const isOpen = (each) => !isCurves(each) && !DATA.evaluation?.targets.length; // an evaluation shows the same, and more
  const show = (each) => make("details", { open: isOpen(each) }, make("summary", {}, each.name), make("img", { src: each.uri, alt: each.name, class: "drawn" }));
  replace(byId("pictures"), pictures.map(show), samples ? make("details", { open: true }, make("summary", {}, "samples.txt"), make("pre", {}, samples)) : null);
}

function drawSpec() {
  if (!DATA.spec) return replace(byId("spec"), make("p", { class: "empty" }, "spec.yaml is missing."));
  const text = make("pre", {}, DATA.spec);
  const button = make("button", { class: "copy", onclick: () => copy(text, button) }, "Copy");
  replace(byId("spec"), make("details", {}, make("summary", {}, "spec.yaml: every setting of this run"), make("div", { class: "copyable" }, button, text)));
}

function drawEnvironment() {
  const rows = DATA.environment.filter(([, value]) => value !== "");
  if (!rows.length) return replace(byId("environment"), make("p", { class: "empty" }, "environment.json is missing."));
  replace(byId("environment"), make("dl", { class: "facts" }, rows.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)))));
}

function drawUse() {
  replace(byId("use"), DATA.commands.map((each) => make("div", { class: "use" }, make("p", { class: "soft tight" }, each.about), command(each.text))));
}
