// Saves the figure above as a picture, in the browser: the figure's own button knows how, but for one format only.

function save(place, format, filename) {
  const plot = place.closest("[class*='st-key-saved-']")?.querySelector(".js-plotly-plot");
  const button = plot?.querySelector(".modebar-btn[data-title^='Download plot']");
  if (!button) return;
  const usual = plot._context.toImageButtonOptions;
  // Two points a pixel: a picture of points is printed, too.
  plot._context.toImageButtonOptions = { format, filename, ...(format === "png" && { scale: 2 }) };
  button.click();
  plot._context.toImageButtonOptions = usual;
}

export default function ({ data, parentElement }) {
  const abort = new AbortController();
  for (const button of parentElement.querySelectorAll("button[data-format]"))
    button.addEventListener("click", () => save(parentElement, button.dataset.format, data), { signal: abort.signal });
  return () => abort.abort();
}
