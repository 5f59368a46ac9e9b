// Saves the figure above as a picture, in the browser: the figure's own button knows how, but for one format only.

function save(place, format, filename) {
  const plot = place.closest("[class*='st-key-saved-']")?.querySelector(".js-plotly-plot");
  const button = plot?.querySelector(".modebar-btn[data-title^='Download plot']");
  if (!button) return;
  const usual = plot._context.toImageButtonOptions;
  const { showlegend, legend, title, margin, height } = plot.layout;
  // Two points a pixel: a picture of points is printed, too.
  plot._context.toImageButtonOptions = { format, filename, ...(format === "png" && { scale: 2 }) };
  // The colours that the page explains must be explained on paper. The picture is made of a copy of this layout.
  if (plot.layout.meta?.legend)
    Object.assign(plot.layout, { showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 } });
  const { told } = plot.layout.meta ?? {};
  // What it is of stands below it, in room of its own.
  if (told) {
    const text = told.replaceAll("<", "&lt;").replaceAll("\n", "<br>");
    const place = { x: 0.01, xanchor: "left", y: 0, yanchor: "bottom", yref: "container", pad: { b: 6 } };
    const more = 16 * told.split("\n").length + 10;
    Object.assign(plot.layout, {
      title: { text, font: { size: 11 }, ...place },
      margin: { ...margin, b: (margin?.b ?? 80) + more },
      height: (height ?? plot.offsetHeight) + more,
    });
  }
  button.click();
  Object.assign(plot.layout, { showlegend, legend, title, margin, height });
  plot._context.toImageButtonOptions = usual;
}

export default function ({ data, parentElement }) {
  const abort = new AbortController();
  for (const button of parentElement.querySelectorAll("button[data-format]"))
    button.addEventListener("click", () => save(parentElement, button.dataset.format, data), { signal: abort.signal });
  return () => abort.abort();
}
