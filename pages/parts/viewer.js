// The film viewer. It draws what it was given and never asks the server: zoom, pan, window, level and inversion change
// the picture on this screen only, never what the model reads.

// Films live in one place per browser tab. A "film source" puts a film in, viewers look it up, and it goes when the
// source leaves the page.
const store = (window.scaphoidFilms ??= { films: new Map(), listeners: new Set() });

const HEADER_BYTES = 64 + 12;
const PRESETS = {
  1: { name: "As recorded", width: 1.0, level: 0.5 },
  2: { name: "Bone", width: 0.55, level: 0.6 },
  3: { name: "Fine bone", width: 0.35, level: 0.72 },
  4: { name: "Soft tissue", width: 0.45, level: 0.27 },
  5: { name: "Dark film", width: 0.5, level: 0.25 },
};

function parseFilm(bytes) {
  const id = new TextDecoder().decode(bytes.subarray(0, 64));
  const view = new DataView(bytes.buffer, bytes.byteOffset + 64, 12);
  const [width, height, top] = [0, 4, 8].map((offset) => view.getUint32(offset, true));
  // A copy, because 16-bit values must start at an even address.
  const raw = bytes.slice(HEADER_BYTES).buffer;
  return { id, width, height, top, values: top > 255 ? new Uint16Array(raw) : new Uint8Array(raw) };
}

function mountSource({ data, parentElement }) {
  const film = parseFilm(data);
  const held = store.films.get(film.id);
  const users = (held?.users ?? 0) + (parentElement.scaphoidFilm === film.id ? 0 : 1);
  if (!held) store.films.set(film.id, Object.assign(film, { users }));
  else held.users = users;
  parentElement.scaphoidFilm = film.id;
  store.listeners.forEach((listener) => listener());
  return () => {
    delete parentElement.scaphoidFilm;
    const kept = store.films.get(film.id);
    if (kept && --kept.users <= 0) store.films.delete(film.id);
  };
}

class Viewer {
  constructor(root) {
    this.root = root;
    this.stage = root.querySelector(".stage");
    this.panes = [...root.querySelectorAll("canvas.pane")];
    this.views = new Map(); // film id -> {scale, x, y} in film pixels; absent while the film is fitted to its pane
    this.window = { ...PRESETS[1] };
    this.inverted = false;
    this.selected = 0;
    this.tool = "pan";
    this.opacity = 0.6;
    this.showSquare = false;
    this.data = { films: [] };
    this.strip = root.querySelector(".strip");
    this.abort = new AbortController();
    this.bind();
  }

  // ---- what the server sent ----------------------------------------------------------------------------------------
  async update(component) {
    const data = component.data ?? { films: [] };
    this.send = component;
    const studyChanged = data.study !== this.data.study;
    this.data = data;
    if (studyChanged) {
      this.views.clear();
      this.window = { ...PRESETS[1] };
      this.inverted = false;
      this.selected = 0;
    }
    this.selected = Math.min(this.selected, Math.max(0, data.films.length - 1));
    this.colours = data.colours && Uint8Array.from(atob(data.colours), (c) => c.charCodeAt(0));
    const heat = data.overlay?.heat;
    if (heat !== this.heatKey) {
      this.heatKey = heat;
      this.heat = null;
      const painted = heat ? await this.paintHeat(heat) : null;
      if (heat !== this.heatKey) return; // Another answer has come meanwhile.
      this.heat = painted;
    }
    this.root.querySelector(".opacity").hidden = !data.overlay;
    this.drawStrip();
    this.draw();
  }

  async paintHeat(base64) {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    const image = context.getImageData(0, 0, bitmap.width, bitmap.height);
    for (let i = 0; i < image.data.length; i += 4) {
      const level = image.data[i];
      for (let c = 0; c < 3; c++) image.data[i + c] = this.colours[3 * level + c];
      image.data[i + 3] = level;
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  // ---- drawing -----------------------------------------------------------------------------------------------------
  get entry() {
    return this.data.films[this.selected];
  }

  get film() {
    return this.entry && store.films.get(this.entry.id);
  }

  grey(film) {
    const { width, level } = this.window;
    const key = `${film.id}|${width}|${level}|${this.inverted}`;
    if (film.greyKey === key) return film.grey;
    const table = new Uint8ClampedArray(film.top + 1);
    for (let v = 0; v <= film.top; v++) {
      const shown = (v / film.top - (level - width / 2)) / width;
      table[v] = 255 * (this.inverted ? 1 - Math.min(1, Math.max(0, shown)) : shown);
    }
    const canvas = film.grey ?? new OffscreenCanvas(film.width, film.height);
    const context = canvas.getContext("2d");
    const image = context.createImageData(film.width, film.height);
    const words = new Uint32Array(image.data.buffer);
    for (let i = 0; i < words.length; i++) words[i] = 0xff000000 | (table[film.values[i]] * 0x010101);
    context.putImageData(image, 0, 0);
    film.grey = canvas;
    film.greyKey = key;
    return canvas;
  }

  fit(film, pane) {
    const scale = Math.min(pane.clientWidth / film.width, pane.clientHeight / film.height);
    return { scale, x: film.width / 2, y: film.height / 2 };
  }

  view(film, pane = this.panes[0]) {
    return this.views.get(film.id) ?? this.fit(film, pane);
  }

  draw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      this.paint();
    });
  }

  paint() {
    const { film, entry } = this;
    const overlay = this.data.overlay;
    this.root.classList.toggle("two", Boolean(overlay));
    this.root.querySelector(".empty").hidden = Boolean(film);
    this.panes[1].hidden = !overlay;
    const shown = overlay ? this.panes : [this.panes[0]];
    for (const pane of shown) {
      const ratio = window.devicePixelRatio || 1;
      const size = [Math.round(pane.clientWidth * ratio), Math.round(pane.clientHeight * ratio)];
      if (pane.width !== size[0] || pane.height !== size[1]) [pane.width, pane.height] = size;
      const context = pane.getContext("2d");
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.fillStyle = "#000";
      context.fillRect(0, 0, ...size);
      if (!film) continue;
      const { scale, x, y } = this.view(film, pane);
      const s = scale * ratio;
      context.setTransform(s, 0, 0, s, size[0] / 2 - x * s, size[1] / 2 - y * s);
      context.imageSmoothingEnabled = s < 3;
      context.imageSmoothingQuality = "high";
      context.drawImage(this.grey(film), 0, 0);
      const isOverlay = pane === this.panes[1];
      if (isOverlay && this.heat && overlay.film === entry.id) {
        context.globalAlpha = this.opacity;
        context.imageSmoothingEnabled = true;
        context.drawImage(this.heat, 0, 0, film.width, film.height);
        context.globalAlpha = 1;
      }
      const region = this.draft ?? entry.region;
      if (region && (isOverlay || this.showSquare || this.draft)) this.drawSquare(context, region, 1 / s);
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      const making = "The heat map of this film: being made";
      const label = overlay?.film === entry.id ? overlay.label : making;
      this.drawLabels(context, pane, isOverlay ? label : entry.label, scale);
    }
    if (film) this.report(film);
  }

  drawSquare(context, { x, y, side, angle }, pixel) {
    const turn = (angle * Math.PI) / 180;
    const h = side / 2;
    const corner = (a, b) => [x + a * Math.cos(turn) - b * Math.sin(turn), y + a * Math.sin(turn) + b * Math.cos(turn)];
    context.strokeStyle = this.draft ? "#5cb8ff" : "rgba(92, 184, 255, 0.75)";
    context.lineWidth = 1.5 * pixel;
    context.beginPath();
    for (const [a, b] of [[-h, -h], [h, -h], [h, h], [-h, h]]) {
      context.moveTo(...corner(a * 0.75, b));
      context.lineTo(...corner(a, b));
      context.lineTo(...corner(a, b * 0.75));
    }
    // A short stroke on the side where the fingers are.
    context.moveTo(...corner(0, -h));
    context.lineTo(...corner(0, -h * 1.12));
    context.stroke();
  }

  drawLabels(context, pane, title, scale) {
    const { entry } = this;
    context.font = "600 15px system-ui, sans-serif";
    context.textBaseline = "top";
    const text = (words, x, y, align = "left") => {
      context.textAlign = align;
      context.lineWidth = 3;
      context.strokeStyle = "rgba(0, 0, 0, 0.75)";
      context.strokeText(words, x, y);
      context.fillStyle = "#e8ebef";
      context.fillText(words, x, y);
    };
    title.split(": ").forEach((line, number) => text(line, 10, 10 + 20 * number));
    if (entry.side) text(entry.side, pane.clientWidth - 12, 10, "right");
    if (entry.spacing_mm) this.drawScaleBar(context, pane, scale / entry.spacing_mm, text);
  }

  drawScaleBar(context, pane, pixelsPerMm, text) {
    const mm = [1, 2, 5, 10, 20, 50].find((length) => length * pixelsPerMm > 50) ?? 100;
    const [right, bottom] = [pane.clientWidth - 12, pane.clientHeight - 14];
    context.fillStyle = "#e8ebef";
    context.fillRect(right - mm * pixelsPerMm, bottom, mm * pixelsPerMm, 2);
    text(`${mm} mm ${this.entry.spacing_words}`, right, bottom - 22, "right");
  }

  drawStrip() {
    this.strip.hidden = this.data.films.length < 2;
    // The buttons are made once a study, so that the keyboard's place among them is kept.
    const key = this.data.study + this.data.films.map((entry) => entry.label).join("|");
    if (key !== this.stripKey) {
      this.stripKey = key;
      this.strip.replaceChildren(
        ...this.data.films.map((entry, index) => {
          const button = document.createElement("button");
          button.type = "button";
          button.textContent = entry.label;
          button.onclick = () => this.select(index);
          return button;
        })
      );
    }
    [...this.strip.children].forEach((button, index) =>
      button.setAttribute("aria-pressed", String(index === this.selected))
    );
  }

  // What the picture shows now, for people who listen to the page and for tests.
  report(film) {
    const { scale, x, y } = this.view(film);
    const { width, level } = this.window;
    const state = { film: film.id, zoom: scale.toFixed(4), x: x.toFixed(1), y: y.toFixed(1), width: width.toFixed(3) };
    Object.assign(this.root.dataset, state, { level: level.toFixed(3), inverted: this.inverted, opacity: this.opacity });
    const preset = Object.entries(PRESETS).find(([, each]) => each.width === width && each.level === level);
    this.root.querySelector("select").value = preset ? preset[0] : "";
    const fitted = this.fit(film, this.panes[0]).scale;
    this.root.querySelector(".readout").textContent =
      `${Math.round((100 * scale) / fitted)}%  W ${Math.round(100 * width)}  L ${Math.round(100 * level)}`;
    this.root.querySelector("[data-do=invert]").setAttribute("aria-pressed", String(this.inverted));
    this.root.querySelector("[data-do=window]").setAttribute("aria-pressed", String(this.tool === "window"));
    this.root.querySelector("[data-do=mark]").setAttribute("aria-pressed", String(this.tool === "mark"));
    this.root.querySelector("[data-do=square]").setAttribute("aria-pressed", String(this.showSquare));
    this.root.querySelector("[data-do=mark]").hidden = !this.data.markable;
    this.root.querySelector("[data-do=square]").hidden = !this.entry.region;
    this.root.querySelector(".hint").hidden = this.tool !== "mark";
    this.stage.dataset.tool = this.tool;
  }

  // ---- what a reader does ------------------------------------------------------------------------------------------
  select(index) {
    const count = this.data.films.length;
    if (!count) return;
    this.selected = (index + count) % count;
    this.drawStrip();
    this.draw();
    this.send.setStateValue("selected", this.entry.id);
  }

  zoomAt(pane, clientX, clientY, factor) {
    const { film } = this;
    if (!film) return;
    const box = pane.getBoundingClientRect();
    const { scale, x, y } = this.view(film, pane);
    const fitted = this.fit(film, pane).scale;
    const next = Math.min(Math.max(scale * factor, fitted / 2), Math.max(16, fitted));
    const [dx, dy] = [clientX - box.left - box.width / 2, clientY - box.top - box.height / 2];
    // The point under the cursor stays under the cursor.
    this.views.set(film.id, { scale: next, x: x + dx / scale - dx / next, y: y + dy / scale - dy / next });
    this.draw();
  }

  zoomToWrist() {
    const { film, entry } = this;
    if (!film) return;
    if (this.views.has(film.id)) this.views.delete(film.id);
    else {
      const pane = this.panes[0];
      const region = entry.region ?? { x: film.width / 2, y: film.height / 2, side: Math.min(film.width, film.height) / 2 };
      const scale = Math.min(pane.clientWidth, pane.clientHeight) / region.side;
      this.views.set(film.id, { scale, x: region.x, y: region.y });
    }
    this.draw();
  }

  reset() {
    if (this.film) this.views.delete(this.film.id);
    this.window = { ...PRESETS[1] };
    this.inverted = false;
    this.tool = "pan";
    this.draw();
  }

  act(name) {
    const actions = {
      invert: () => (this.inverted = !this.inverted),
      zoom: () => this.zoomToWrist(),
      reset: () => this.reset(),
      window: () => (this.tool = this.tool === "window" ? "pan" : "window"),
      mark: () => (this.tool = this.tool === "mark" ? "pan" : "mark"),
      square: () => (this.showSquare = !this.showSquare),
    };
    actions[name]();
    this.draw();
  }

  bind() {
    const { signal } = this.abort;
    for (const button of this.root.querySelectorAll("[data-do]")) {
      button.addEventListener("click", () => this.act(button.dataset.do), { signal });
    }
    const presets = this.root.querySelector("select");
    presets.replaceChildren(
      ...Object.entries(PRESETS).map(([key, { name }]) => new Option(`${key}  ${name}`, key))
    );
    presets.addEventListener("change", () => this.preset(presets.value), { signal });
    const slider = this.root.querySelector(".opacity input");
    slider.addEventListener("input", () => ((this.opacity = slider.valueAsNumber / 100), this.draw()), { signal });
    for (const pane of this.panes) this.bindPane(pane, signal);
    document.addEventListener("keydown", (event) => this.key(event), { signal });
    this.resize = new ResizeObserver(() => this.draw());
    this.resize.observe(this.stage);
    this.redraw = () => this.draw();
    store.listeners.add(this.redraw);
  }

  bindPane(pane, signal) {
    const wheel = (event) => {
      event.preventDefault();
      this.zoomAt(pane, event.clientX, event.clientY, Math.exp(-event.deltaY / 400));
    };
    pane.addEventListener("wheel", wheel, { signal, passive: false });
    pane.addEventListener("contextmenu", (event) => event.preventDefault(), { signal });
    pane.addEventListener("dblclick", () => this.act("zoom"), { signal });
    pane.addEventListener("pointerdown", (event) => this.startDrag(pane, event), { signal });
    pane.addEventListener("pointermove", (event) => this.moveDrag(pane, event), { signal });
    pane.addEventListener("pointerup", (event) => this.endDrag(event), { signal });
    pane.addEventListener("pointercancel", (event) => this.dropDrag(event), { signal });
  }

  toFilm(pane, event) {
    const box = pane.getBoundingClientRect();
    const { scale, x, y } = this.view(this.film, pane);
    return [
      x + (event.clientX - box.left - box.width / 2) / scale,
      y + (event.clientY - box.top - box.height / 2) / scale,
    ];
  }

  startDrag(pane, event) {
    // A second finger moves nothing: the film would leap from one to the other.
    if (!this.film || this.drag) return;
    pane.setPointerCapture(event.pointerId);
    pane.focus({ preventScroll: true });
    const tool = event.button === 2 || event.shiftKey ? "window" : this.tool;
    const { scale } = this.view(this.film, pane);
    const from = this.toFilm(pane, event);
    this.drag = { tool, x: event.clientX, y: event.clientY, from, scale, pointer: event.pointerId };
  }

  moveDrag(pane, event) {
    if (this.drag?.pointer !== event.pointerId) return;
    const [dx, dy] = [event.clientX - this.drag.x, event.clientY - this.drag.y];
    if (this.drag.tool === "mark") {
      const [x, y] = this.drag.from;
      const [tx, ty] = this.toFilm(pane, event);
      const angle = (Math.atan2(tx - x, y - ty) * 180) / Math.PI;
      this.draft = { x, y, side: 2 * Math.hypot(tx - x, ty - y), angle };
    } else {
      Object.assign(this.drag, { x: event.clientX, y: event.clientY });
      if (this.drag.tool === "window") this.dragWindow(dx, dy);
      else this.dragFilm(pane, dx, dy);
    }
    this.draw();
  }

  dragWindow(dx, dy) {
    this.window = {
      width: Math.min(2, Math.max(0.02, this.window.width * Math.exp(dx / 250))),
      level: Math.min(1.2, Math.max(-0.2, this.window.level + dy / 500)),
    };
  }

  dragFilm(pane, dx, dy) {
    const { scale, x, y } = this.view(this.film, pane);
    this.views.set(this.film.id, { scale, x: x - dx / scale, y: y - dy / scale });
  }

  dropDrag(event) {
    if (this.drag?.pointer !== event.pointerId) return;
    this.drag = this.draft = null;
    this.draw();
  }

  endDrag(event) {
    if (this.drag?.pointer !== event.pointerId) return;
    const { draft, drag } = this;
    this.drag = this.draft = null;
    // As wide as a hand can mean it, on the screen: a click that slips marks nothing.
    if (draft && draft.side * drag.scale >= 40) {
      this.tool = "pan";
      this.entry.region = draft;
      this.send.setTriggerValue("region", { film: this.entry.id, ...draft });
    }
    this.draw();
  }

  preset(key) {
    const { width, level } = PRESETS[key];
    this.window = { width, level };
    this.root.querySelector("select").value = key;
    this.draw();
  }

  key(event) {
    const target = event.composedPath()[0];
    const typing = target.closest?.("textarea, [contenteditable=true], input:not([type=radio], [type=checkbox], [type=range])");
    if (event.ctrlKey || event.metaKey || event.altKey || typing || !this.film) return;
    const actions = { i: "invert", z: "zoom", " ": "reset", w: "window" };
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    // Space and the arrows belong to whatever control has the focus; letters and digits do not.
    const control = target.closest?.("button, a, summary, input, select, [role]:not([role=img], [role=group], [role=main])");
    if (control && (key === " " || key.startsWith("Arrow"))) return;
    if (key.startsWith("Arrow") && this.data.films.length < 2) return;
    if (key in actions) this.act(actions[key]);
    else if (key in PRESETS) this.preset(key);
    else if (key === "ArrowRight" || key === "ArrowDown") this.select(this.selected + 1);
    else if (key === "ArrowLeft" || key === "ArrowUp") this.select(this.selected - 1);
    else return;
    event.preventDefault();
  }

  close() {
    this.abort.abort();
    this.resize.disconnect();
    store.listeners.delete(this.redraw);
    cancelAnimationFrame(this.pending);
  }
}

function mountViewer(component) {
  const root = component.parentElement.querySelector(".film-viewer");
  root.viewer ??= new Viewer(root);
  root.viewer.update(component);
  return () => {
    root.viewer?.close();
    root.viewer = null;
  };
}

export default function (component) {
  return component.parentElement.querySelector(".film-viewer") ? mountViewer(component) : mountSource(component);
}
