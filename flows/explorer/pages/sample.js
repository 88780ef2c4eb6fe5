// One sample in full: its pictures with boxes and masks, its texts, its scores, its record.

import { act, ask, byId, draw, make, number, onChange, onRenew, OPEN, picture, show, undo } from "./common.js";

const shown = { boxes: true, masks: true, counterfactual: true, hidden: new Set() };
const SWITCHES = { boxes: "Boxes (b)", masks: "Masks (m)", counterfactual: "Counterfactual (c)" };
let opened = null;
let around = null;
let turn = 0;

export const isOpen = () => opened !== null;
export const shownSample = () => opened;

export async function openSample(key, context) {
  const own = ++turn;
  around = context;
  try {
    const sample = await ask(`api/samples/${encodeURIComponent(key)}`);
    if (own !== turn) return;
    opened = sample;
    show("");
  } catch (error) {
    if (own !== turn) return;
    show(error.message);
    return;
  }
  render();
}

export function closeSample() {
  turn += 1;
  opened = null;
  byId("sample").hidden = true;
  byId("sample").replaceChildren();
  document.body.classList.remove("opened");
  behind(false);
}

/** Whether what lies behind an open sample is out of reach. */
function behind(hidden) {
  for (const each of document.querySelectorAll("header, main")) each.inert = hidden;
}

export function toggle(name) {
  if (!opened) return;
  shown[name] = !shown[name];
  apply();
}

onChange((sample) => {
  if (opened?.key !== sample.key) return;
  Object.assign(opened, sample);
  openSample(sample.key, around); // its history has grown
});

onRenew(() => opened && openSample(opened.key, around));

const bar = (label, run) => {
  const made = make("button", { type: "button" }, label);
  made.addEventListener("click", run);
  return made;
};

function render() {
  const sample = opened;
  const place = byId("sample");
  const isNew = place.hidden;
  const before = isNew ? 0 : place.scrollTop;
  place.replaceChildren(
    make("div", { class: "bar" },
      bar("‹ List", around.close),
      bar("‹", () => around.step(-1)),
      make("span", {}, around.place),
      bar("›", () => around.step(1)),
      make("code", {}, sample.key),
      ...state(sample),
      make("span", { class: "acts" },
        bar(sample.flagged ? "Take the flag back (f)" : "Flag (f)", () => act("f", sample)),
        bar(sample.excluded ? "Take back in (x)" : "Exclude (x)", () => act("x", sample)),
        bar("Note (n)", () => act("n", sample)),
        bar("Undo (u)", undo))),
    ...sample.notes.map((each) => make("p", { class: "missing", dir: "auto" }, each)),
    switches(sample),
    make("div", { class: "pictures" },
      figure(sample, "image", sample.objects, sample.text),
      figure(sample, "counterfactual", sample.counterfactual_boxes, sample.counterfactual_text)),
    facts(sample));
  place.hidden = false;
  place.scrollTop = before;
  document.body.classList.add("opened");
  behind(true);
  if (isNew) place.focus();
  apply();
}

function state(sample) {
  return [
    sample.excluded ? make("b", { class: "out" }, `excluded: `, make("bdi", {}, sample.excluded)) : null,
    sample.flagged ? make("b", { class: "flag" }, "⚑ flagged") : null,
    sample.fate === "written" ? null : make("span", { class: sample.fate === OPEN ? "open" : "fate" }, fate(sample)),
  ];
}

function fate({ fate, stage, detail }) {
  if (fate !== OPEN) return `${fate} at ${stage}${detail ? `: ${detail}` : ""}`;
  return `${fate}: the stage ${stage} is done${detail ? `; not delivered by ${detail}` : ""}`;
}

function switches(sample) {
  const all = Object.entries(SWITCHES).map(([name, label]) => {
    const box = make("input", { type: "checkbox", id: `show-${name}` });
    box.addEventListener("change", () => toggle(name));
    return make("label", {}, box, " ", label);
  });
  const classes = sample.classes_in_full.map((each) => {
    const box = make("input", { type: "checkbox", checked: !shown.hidden.has(each.id) });
    box.dataset.class = each.id;
    box.addEventListener("change", () => {
      if (box.checked) shown.hidden.delete(each.id);
      else shown.hidden.add(each.id);
      apply();
    });
    const swatch = make("i", { class: "swatch" });
    swatch.style.background = each.colour;
    return make("label", { class: "class" }, box, swatch, make("bdi", {}, each.name));
  });
  return make("div", { class: "switches" }, ...all, ...classes);
}

function figure(sample, kind, objects, text) {
  const frame = make("div", { class: "stack" });
  const { width, height } = sample;
  if (sample.pictures[kind]) {
    const image = make("img", { alt: kind, src: picture(sample, kind) });
    image.addEventListener("load", () => frame.classList.toggle("pixels", image.naturalWidth <= 256));
    image.addEventListener("error", () => image.replaceWith(make("em", {}, `the ${kind} cannot be shown`)));
    frame.append(image);
    if (width && height) {
      frame.style.aspectRatio = `${width} / ${height}`;
      if (kind === "image") frame.append(...masks(sample));
      frame.append(boxes(sample, objects));
    }
  } else {
    frame.append(make("em", {}, `no ${kind} is stored`));
  }
  return make("figure", { class: kind }, frame,
    make("figcaption", { dir: "auto" }, ...text.map(piece), text.length ? null : make("em", {}, "no text")));
}

function piece(part) {
  if (!part.colour) return document.createTextNode(part.text);
  const made = make("mark", {}, part.text);
  if (part.colour === "changed") made.className = "changed";
  else made.style.borderColor = part.colour;
  return made;
}

function masks(sample) {
  if (!sample.pictures.masks) return [];
  const names = sample.classes_in_full.map((each) => String(each.id));
  if (sample.pictures.ignored) names.push("ignored");
  return names.map((name) => {
    const layer = make("img", { class: "mask", alt: "", src: picture(sample, "mask", `&name=${name}`) });
    layer.dataset.class = name;
    layer.addEventListener("error", () => layer.remove());
    return layer;
  });
}

function boxes(sample, objects) {
  const colours = Object.fromEntries(sample.classes_in_full.map((each) => [each.id, each.colour]));
  const made = draw("svg", { viewBox: `0 0 ${sample.width} ${sample.height}`, preserveAspectRatio: "none", class: "boxes" });
  for (const each of objects) {
    const [left, top, right, bottom] = each.xyxy;
    const box = draw("rect", {
      x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top),
      fill: "none", stroke: colours[each.class_id] ?? "#888", "vector-effect": "non-scaling-stroke",
    });
    box.dataset.class = each.class_id;
    box.append(draw("title", {}, `${number(each.score)}`));
    made.append(box);
  }
  return made;
}

function facts(sample) {
  const names = Object.fromEntries(sample.classes_in_full.map((each) => [each.id, each]));
  const pixels = sample.width * sample.height;
  const rows = sample.objects.map((each) => make("tr", {},
    make("td", {}, make("bdi", {}, names[each.class_id]?.name ?? `class ${each.class_id}`)),
    make("td", {}, number(each.score)),
    make("td", {}, number(each.iou)),
    make("td", {}, each.xyxy.map(Math.round).join(", "))));
  const areas = sample.classes_in_full.filter((each) => each.area !== null).map((each) => make("tr", {},
    make("td", {}, make("bdi", {}, each.name)),
    make("td", {}, `${number(each.area)} px`),
    make("td", {}, pixels ? `${((100 * each.area) / pixels).toFixed(1)} %` : "")));
  const history = sample.history.map((each) => make("li", { dir: "auto" },
    `${each.at.slice(0, 16).replace("T", " ")} ${each.who}: ${each.act} ${each.why ?? each.text ?? ""}`));
  const json = (title, value) => value
    ? make("details", {}, make("summary", {}, title), make("pre", {}, JSON.stringify(value, null, 1)))
    : null;
  return make("div", { class: "facts" },
    sample.note ? make("p", { class: "note", dir: "auto" }, `✎ ${sample.note}`) : null,
    rows.length ? make("table", {}, heads("object", "box score", "SAM IoU", "left, top, right, bottom"), ...rows) : null,
    areas.length ? make("table", {}, heads("class", "area", "of the picture"), ...areas) : null,
    make("p", {}, `shard ${sample.shard}, ${sample.width} × ${sample.height} pixels`,
      "agreement" in sample.measures ? `, agreement ${number(sample.measures.agreement)}` : ""),
    history.length ? make("ul", {}, ...history) : null,
    json("Record (JSON of the tar)", sample.record),
    json(sample.fate === OPEN ? "What is known so far" : "Row of the manifest", sample.row));
}

const heads = (...names) => make("tr", {}, ...names.map((each) => make("th", {}, each)));

function apply() {
  const place = byId("sample");
  for (const name of Object.keys(SWITCHES)) byId(`show-${name}`).checked = shown[name];
  place.classList.toggle("without-boxes", !shown.boxes);
  place.classList.toggle("without-masks", !shown.masks);
  place.classList.toggle("without-counterfactual", !shown.counterfactual);
  for (const each of place.querySelectorAll(".mask, .boxes rect")) {
    each.classList.toggle("off", shown.hidden.has(Number(each.dataset.class)));
  }
}
