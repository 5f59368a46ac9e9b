// Saves the figure above as a picture, in the browser: the figure's own button knows how, but for one format only.

function save(place, format, filename) {
  const plot = place.closest("[class*='st-key-saved-']")?.querySelector(".js-plotly-plot");
  const button = plot?.querySelector(".modebar-btn[data-title^='Download plot']");
  if (!button) return;
  const usual = plot._context.toImageButtonOptions;
  const { showlegend, legend } = plot.layout;
  // Two points a pixel: a picture of points is printed, too.
  plot._context.toImageButtonOptions = { format, filename, ...(format === "png" && { scale: 2 }) };
  // The colours that the page explains must be explained on paper. The picture is made of a copy of this layout.
  if (plot.layout.meta?.legend)
    Object.assign(plot.layout, { showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 } });
  button.click();
  Object.assign(plot.layout, { showlegend, legend });
  plot._context.toImageButtonOptions = usual;
}

export default function ({ data, parentElement }) {
  const abort = new AbortController();
  for (const button of parentElement.querySelectorAll("button[data-format]"))
    button.addEventListener("click", () => save(parentElement, button.dataset.format, data), { signal: abort.signal });
  return () => abort.abort();
}
