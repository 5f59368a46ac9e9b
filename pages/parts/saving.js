// Saves the figure above as a picture, in the browser: the figure's own button knows how, but for one format only.

const GAP = 4; // points between a figure and its legend

function save(place, format, filename) {
  const plot = place.closest("[class*='st-key-saved-']")?.querySelector(".js-plotly-plot");
  const button = plot?.querySelector(".modebar-btn[data-title^='Download plot']");
  if (!button) return;
  const usual = plot._context.toImageButtonOptions;
  const { showlegend, legend, title, margin, font } = plot.layout;
  const { legend: marked, told } = plot.layout.meta ?? {};
  const { height, width, _size: size } = plot._fullLayout;
  // Two points a pixel: a picture of points is printed, too.
  const options = { format, filename, ...(format === "png" && { scale: 2 }) };
  // A picture has no fonts of the page's own: words measured in one and drawn in another would be cut off.
  plot.layout.font = { ...font, family: "sans-serif" };
  let more = 0; // points above the figure
  // The colours that the page explains must be explained on paper. The picture is made of a copy of this layout.
  if (marked) {
    more += legendHeight(plot.data, size.w) + GAP;
    const above = { y: 1 + GAP / size.h, yanchor: "bottom", x: 0 };
    Object.assign(plot.layout, { showlegend: true, legend: { orientation: "h", ...above } });
  }
  // What it is of stands above it.
  if (told) {
    const lines = told.split("\n").flatMap((line) => wrapped(line, Math.max(30, Math.floor(width / 6))));
    more += 14.3 * lines.length + 10;
    const text = lines.map((line) => line.replaceAll("&", "&amp;").replaceAll("<", "&lt;")).join("<br>");
    const place = { x: 0, xanchor: "left", y: 1, yanchor: "top", xref: "container", yref: "container" };
    plot.layout.title = { text, font: { size: 11, family: "sans-serif" }, pad: { t: 17, l: 8 }, ...place };
  }
  if (more) {
    plot.layout.margin = { ...margin, t: size.t + more };
    options.height = height + more;
  }
  plot._context.toImageButtonOptions = options;
  button.click();
  Object.assign(plot.layout, { showlegend, legend, title, margin, font });
  plot._context.toImageButtonOptions = usual;
}

// Points that the legend above the figure takes: its names stand in columns as wide as the widest of them.
function legendHeight(traces, width) {
  const names = traces.filter(({ showlegend, name }) => showlegend !== false && name).map(({ name }) => name);
  const widest = 50 + 7 * Math.max(0, ...names.map((name) => name.length));
  return 10 + 19 * Math.ceil(names.length / Math.max(1, Math.floor(width / widest)));
}

function wrapped(line, most) {
  const lines = [""];
  for (const word of line.split(" ")) {
    const last = lines.length - 1;
    if (lines[last] && lines[last].length + 1 + word.length > most) lines.push(word);
    else lines[last] += (lines[last] && " ") + word;
  }
  return lines;
}

export default function ({ data, parentElement }) {
  const abort = new AbortController();
  for (const button of parentElement.querySelectorAll("button[data-format]"))
    button.addEventListener("click", () => save(parentElement, button.dataset.format, data), { signal: abort.signal });
  return () => abort.abort();
}
