// The network: its layers as a table, and its picture, which dagre lays out.

const SVG = "http://www.w3.org/2000/svg";
const FONTS = { title: "600 12px system-ui, sans-serif", line: "11px system-ui, sans-serif", detail: "10px system-ui, sans-serif" };
const HEIGHTS = { title: 17, line: 15, detail: 14 };
const TITLE_HEIGHT = 15; // of a frame

function draw(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function drawNetwork() {
  const { network } = DATA;
  if (network.problem) {
    return replace(byId("network"), make("p", { class: "soft" }, "The network could not be built here, so its layers and its picture are missing:"), make("pre", { class: "message" }, network.problem));
  }
  const layers = network.layers.map((each) => [each.name, each.type, each.output, each.parameters ? count(each.parameters) : "", each.multiply_adds ? count(each.multiply_adds) : "", each.remarks]);
  const heads = ["layer", "type", "output", "parameters", "multiply-adds", layers.some((row) => row[5]) ? "weights" : ""];
  const table = plainTable(heads, layers, ["name", "", "", "number", "number", ""]);
  const isLong = network.layers.length > 30;
  replace(
    byId("network"),
    make("p", { class: "soft totals" }, network.totals.join("\n")),
    make("div", { class: "network-parts" },
      network.boxes.length ? make("div", { class: "scroller picture", tabindex: "0", role: "region", "aria-label": "picture of the network" }, pictureOf(network)) : make("p", { class: "soft" }, "This network has too many layers for a picture here. summary --graph network.svg draws it."),
      make("details", { open: !isLong, class: "layers" }, make("summary", {}, plural(network.layers.length + network.more_layers, "layer")), table, network.more_layers ? make("p", { class: "soft" }, `and ${count(network.more_layers)} more`) : null)),
  );
}

// ---- the picture ----------------------------------------------------------------------------------------------------

const measure = document.createElement("canvas").getContext("2d");

function widthOf(text, kind) {
  measure.font = FONTS[kind];
  return measure.measureText(text).width;
}

const linesOf = (box) => [["title", box.title], ...box.lines.map((each) => ["line", each]), ...box.details.map((each) => ["detail", each])];

function sizeOf(box) {
  const lines = linesOf(box);
  return { width: Math.ceil(Math.max(...lines.map(([kind, text]) => widthOf(text, kind)))) + 20, height: lines.reduce((sum, [kind]) => sum + HEIGHTS[kind], 10) };
}

// Boxes and frames are named by numbers, so that a name from a spec has no meaning here.
function layOut(network) {
  const graph = new dagre.graphlib.Graph({ compound: true, multigraph: true });
  graph.setGraph({ rankdir: "TB", nodesep: 22, ranksep: 30, edgesep: 12, marginx: 8, marginy: 8 });
  const boxes = new Map(network.boxes.map((box, at) => [box.name, `box ${at}`]));
  const frames = new Map(network.frames.map((frame, at) => [frame.name, `frame ${at}`]));
  network.frames.forEach((frame) => graph.setNode(frames.get(frame.name), {}));
  network.boxes.forEach((box) => graph.setNode(boxes.get(box.name), sizeOf(box)));
  network.frames.filter((frame) => frames.has(frame.parent)).forEach((frame) => graph.setParent(frames.get(frame.name), frames.get(frame.parent)));
  network.boxes.filter((box) => frames.has(box.frame)).forEach((box) => graph.setParent(boxes.get(box.name), frames.get(box.frame)));
  network.arrows.forEach((arrow, at) => {
    if (!boxes.has(arrow.source) || !boxes.has(arrow.target)) return;
    const size = arrow.label ? { width: widthOf(arrow.label, "detail") + 8, height: 12, labelpos: "r", labeloffset: 6 } : {};
    graph.setEdge(boxes.get(arrow.source), boxes.get(arrow.target), size, `arrow ${at}`);
  });
  dagre.layout(graph);
  makeRoomForTitles(graph, [...frames.values()]);
  return { graph, boxes, frames };
}

// Move everything that lies below the top of a frame down by the height of the frame's title.
function makeRoomForTitles(graph, frames) {
  const tops = [...new Set(frames.map((name) => Math.round(graph.node(name).y - graph.node(name).height / 2)))];
  const move = (y) => y + TITLE_HEIGHT * tops.filter((top) => top + 0.5 < y).length;
  for (const name of graph.nodes()) {
    const node = graph.node(name);
    if (!frames.includes(name)) node.y = move(node.y);
    else {
      const [top, bottom] = [move(node.y - node.height / 2), move(node.y + node.height / 2)];
      [node.y, node.height] = [(top + bottom) / 2, bottom - top];
    }
  }
  for (const edge of graph.edges().map((each) => graph.edge(each))) {
    edge.points.forEach((point) => (point.y = move(point.y)));
    if (isNumber(edge.y)) edge.y = move(edge.y);
  }
  graph.graph().height = move(graph.graph().height);
}

function pictureOf(network) {
  const { graph, boxes, frames } = layOut(network);
  const { width, height } = graph.graph();
  const picture = draw("svg", { viewBox: `0 0 ${Math.ceil(width)} ${Math.ceil(height)}`, width: Math.ceil(width), height: Math.ceil(height), role: "img", "aria-label": `picture of the network: ${plural(network.layers.length, "layer")}`, class: "network" });
  picture.append(draw("defs", {}, draw("marker", { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" }, draw("path", { d: "M0 0 8 4 0 8z", class: "tip" }))));
  const depths = new Map();
  for (const frame of network.frames) {
    depths.set(frame.name, (depths.get(frame.parent) ?? 0) + 1);
    picture.append(frameOf(frame, graph.node(frames.get(frame.name)), depths.get(frame.name)));
  }
  for (const edge of graph.edges()) picture.append(arrowOf(graph.edge(edge), network.arrows[Number(edge.name.split(" ")[1])].label));
  for (const box of network.boxes) picture.append(boxOf(box, graph.node(boxes.get(box.name))));
  return picture;
}

function frameOf(frame, { x, y, width, height }, depth) {
  const rectangle = draw("rect", { x: x - width / 2, y: y - height / 2, width, height, rx: 8, class: depth % 2 ? "frame" : "frame inner" });
  const whole = `${frame.title}  ${frame.name}`;
  const title = widthOf(whole, "detail") * 1.1 < width - 16 ? whole : frame.title;
  const text = draw("text", { x: x - width / 2 + 8, y: y - height / 2 + 13, class: "frame-title" }, title);
  return draw("g", {}, draw("title", {}, whole), rectangle, text);
}

function boxOf(box, { x, y, width, height }) {
  const group = draw("g", { class: `box ${box.family.replace(/[^a-z]/g, "")}` }, draw("title", {}, box.name.startsWith("<") ? box.title : box.name));
  group.append(draw("rect", { x: x - width / 2, y: y - height / 2, width, height, rx: box.family === "end" ? height / 2 : 6 }));
  let top = y - height / 2 + 5;
  for (const [kind, text] of linesOf(box)) {
    top += HEIGHTS[kind];
    group.append(draw("text", { x, y: top - 4, class: kind }, text));
  }
  return group;
}

// A smooth line through the points of the layout.
function arrowOf(edge, label) {
  const [first, ...points] = edge.points;
  let line = `M${first.x} ${first.y}`;
  points.forEach((point, at) => {
    const next = points[at + 1];
    if (next) line += `Q${point.x} ${point.y} ${(point.x + next.x) / 2} ${(point.y + next.y) / 2}`;
    else line += `L${point.x} ${point.y}`;
  });
  const arrow = draw("g", { class: "arrow" }, draw("path", { d: line, "marker-end": "url(#tip)" }));
  if (label && isNumber(edge.x)) arrow.append(draw("text", { x: edge.x - edge.width / 2 + 4, y: edge.y + 3, class: "detail" }, label));
  return arrow;
}
