// Set up the page. When printed it is light, even if the screen is dark.

function watchTheme(query) {
  const dark = matchMedia(query);
  dark.addEventListener("change", () => {
    readTheme();
    changed("theme");
  });
}

function start() {
  readTheme();
  document.body.append(note);
  drawHeader();
  drawBest();
  startTable();
  startCurves();
  startEffects();
  startParallel();
  drawFailures();
  drawNetworks();
  watchTheme("(prefers-color-scheme: dark)");
  const paper = (isPaper) => () => {
    document.documentElement.classList.toggle("paper", isPaper);
    readTheme();
    for (const listener of listeners.theme) listener();
  };
  addEventListener("beforeprint", paper(true));
  addEventListener("afterprint", paper(false));
}

start();
