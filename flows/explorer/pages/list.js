// The list of samples: filters, order, pages and the keys.

import { act, actOnMany, ask, byId, make, number, onChange, onRenew, OPEN, picture, show, undo } from "./common.js";
import { closeSample, isOpen, openSample, shownSample, toggle } from "./sample.js";

const PAGE = 60;
const NAMES = { score: "box", iou: "IoU", area: "area", objects: "objects", agreement: "agreement" };
const MOST_PICKED = 2000;
const state = { query: {}, start: 0, found: 0, list: "", samples: [], selected: 0, classes: [], asked: null };
/** Samples that were chosen one by one, by key; and from where a range of them reaches. */
const picked = new Set();
let anchor = null;

const clean = (query) =>
  Object.fromEntries(Object.entries(query).filter(([, value]) =>
    value !== null && value !== "" &&
    !(typeof value === "object" && Object.keys(value).length === 0)));

function keep() {
  const open = isOpen() ? state.samples[state.selected]?.key : undefined;
  const kept = { ...state.query, start: state.start || undefined, open };
  const text = JSON.stringify(kept);
  history.replaceState(null, "", text === "{}" ? "#" : `#${encodeURIComponent(text)}`);
}

function remembered() {
  try {
    return JSON.parse(decodeURIComponent(location.hash.slice(1)) || "{}");
  } catch {
    return {};
  }
}

async function find() {
  state.asked?.abort();
  const asked = (state.asked = new AbortController());
  const path = `api/samples?query=${encodeURIComponent(JSON.stringify(state.query))}&start=${state.start}&count=${PAGE}`;
  try {
    const answer = await ask(path, { signal: asked.signal });
    state.found = answer.found;
    state.list = answer.list;
    anchor = null;
    state.samples = answer.samples;
    if (!answer.samples.length && answer.found) {
      state.start = Math.floor((answer.found - 1) / PAGE) * PAGE;
      await find();
      return;
    }
    state.selected = Math.max(0, Math.min(state.selected, state.samples.length - 1));
    list();
    keep();
  } catch (error) {
    if (error.name !== "AbortError") show(error.message);
  }
}

function card(sample, place) {
  const frame = make("span", { class: "frame" });
  if (sample.stage === "prompts") {
    frame.append(make("em", {}, "not painted"));
  } else {
    const image = make("img", { loading: "lazy", alt: sample.classes.join(", "), src: picture(sample, "thumbnail") });
    image.addEventListener("load", () => image.classList.toggle("pixels", image.naturalWidth <= 96));
    image.addEventListener("error", () => image.replaceWith(make("em", {}, "no image")));
    frame.append(image);
  }
  const marks = [
    sample.excluded ? make("b", { class: "out", title: `excluded: ${sample.excluded}` }, "excluded") : null,
    sample.flagged ? make("b", { class: "flag", title: "flagged" }, "⚑") : null,
    sample.note ? make("b", { class: "note", title: sample.note }, "✎") : null,
  ];
  const fate = sample.fate === "written" ? null : make("span", { class: sample.fate === OPEN ? "open" : "fate" }, sample.fate);
  const measures = Object.entries(sample.measures)
    .filter(([name]) => name === "score" || name === "iou" || name === state.query.order)
    .map(([name, value]) => `${NAMES[name]} ${number(value)}`)
    .join(" · ");
  const made = make("button", { type: "button", class: "card", title: sample.key },
    frame,
    make("span", { class: "marks" }, ...marks),
    make("bdi", { class: "classes" }, sample.classes.join(", ")),
    make("small", {}, measures),
    fate);
  made.dataset.key = sample.key;
  made.addEventListener("click", (event) => {
    if (event.shiftKey || event.ctrlKey || event.metaKey) {
      pickTo(place, event.shiftKey);
      return;
    }
    select(place);
    open();
  });
  const pick = make("input", { type: "checkbox", class: "pick", title: "select (s)", ariaLabel: `select ${sample.key}` });
  pick.addEventListener("click", (event) => pickTo(place, event.shiftKey));
  return make("div", { class: "tile" }, made, pick);
}

// choosing several

function pickTo(place, range) {
  const [first, last] = range ? [anchor ?? state.selected, place] : [place, place];
  const keys = state.samples.slice(Math.min(first, last), Math.max(first, last) + 1).map((each) => each.key);
  if (!range && picked.has(keys[0])) picked.delete(keys[0]);
  else keys.forEach((key) => picked.add(key));
  anchor = range ? first : place;
  select(place);
  showPicked();
}

/** Take the next sample, or the one before, into the choice; back towards where it began, out of it. */
async function extend(by) {
  if (isOpen()) return step(by);
  const from = state.selected;
  anchor ??= from;
  if (Math.abs(from + by - anchor) < Math.abs(from - anchor)) picked.delete(state.samples[from].key);
  else if (state.samples[from]) picked.add(state.samples[from].key);
  await step(by);
  if (state.samples[state.selected]) picked.add(state.samples[state.selected].key);
  showPicked();
}

function unpick() {
  picked.clear();
  anchor = null;
  showPicked();
}

function showPicked() {
  if (picked.size > MOST_PICKED) {
    show(`At most ${MOST_PICKED.toLocaleString("en")} samples are selected one by one: narrow the filter, and take all that it finds.`);
    for (const key of [...picked].slice(MOST_PICKED)) picked.delete(key);
  }
  byId("grid").querySelectorAll(".tile").forEach((tile, at) => {
    const isPicked = picked.has(state.samples[at].key);
    tile.classList.toggle("picked", isPicked);
    tile.querySelector(".pick").checked = isPicked;
  });
  const all = `All ${state.found.toLocaleString("en")}`;
  byId("many-what").textContent = picked.size ? `${picked.size.toLocaleString("en")} selected` : all;
  byId("many").hidden = !state.found;
  byId("unpick").hidden = !picked.size;
}

/** The samples that buttons and keys speak of: those that were chosen, or all of the list. */
const chosen = () => (picked.size ? { keys: [...picked] } : { list: state.list });

onRenew(async () => {
  if (!state.samples.length) return;
  const keys = state.samples.map((each) => each.key);
  const now = await ask(`api/facts?keys=${encodeURIComponent(keys.join(","))}`);
  const known = new Map(now.map((each) => [each.key, each]));
  state.samples = state.samples.map((each) => known.get(each.key) ?? each);
  list();
});

function list() {
  const { found, start, samples } = state;
  byId("found").textContent = `${found.toLocaleString("en")} ${found === 1 ? "sample" : "samples"}`;
  byId("where").textContent = found ? `${start + 1}–${start + samples.length}` : "";
  byId("before").disabled = !start;
  byId("after").disabled = start + samples.length >= found;
  byId("grid").replaceChildren(...samples.map(card));
  if (!found) byId("grid").append(make("p", { class: "empty" }, emptyWords()));
  select(state.selected, false);
  showPicked();
}

function emptyWords() {
  if (Object.keys(state.query).length) return "No sample is like that: take a filter back.";
  return "There is no sample yet. 'magicseg generate' makes some; press Reload then.";
}

function select(place, scroll = true) {
  state.selected = place;
  const cards = byId("grid").querySelectorAll(".card");
  cards.forEach((each, at) => each.classList.toggle("selected", at === place));
  if (scroll) cards[place]?.scrollIntoView({ block: "nearest" });
}

async function step(by) {
  const next = state.selected + by;
  if (next < 0 && state.start > 0) {
    state.start = Math.max(0, state.start - PAGE);
    state.selected = PAGE - 1;
    await find();
  } else if (next >= state.samples.length && state.start + state.samples.length < state.found) {
    state.start += PAGE;
    state.selected = 0;
    await find();
  } else if (next >= 0 && next < state.samples.length) {
    select(next);
  } else {
    return;
  }
  if (isOpen()) open();
}

async function open() {
  const sample = state.samples[state.selected];
  if (!sample) return;
  await openSample(sample.key, {
    close,
    step,
    place: `${state.start + state.selected + 1} of ${state.found.toLocaleString("en")}`,
  });
  keep();
}

function close() {
  closeSample();
  keep();
  select(state.selected);
  byId("grid").querySelector(".card.selected")?.focus();
}

onChange((sample) => {
  const at = state.samples.findIndex((each) => each.key === sample.key);
  if (at < 0) return;
  state.samples[at] = sample;
  byId("grid").querySelectorAll(".tile")[at]?.replaceWith(card(sample, at));
  select(state.selected, false);
  showPicked();
});

// filters

function options(place, rows) {
  byId(place).replaceChildren(...rows.map(([value, text]) => make("option", { value }, text)));
}

function readFilters() {
  const query = {
    words: byId("words").value.trim(),
    place: byId("place").value.trim(),
    classes: state.query.classes ?? [],
    fates: byId("fate").value === "" ? [] : JSON.parse(byId("fate").value),
    order: byId("order").value === "plan" ? "" : byId("order").value,
    descending: byId("descending").checked || null,
    least: {},
    most: {},
  };
  for (const name of ["excluded", "flagged", "noted"]) {
    query[name] = byId(name).value === "" ? null : byId(name).value === "yes";
  }
  for (const input of document.querySelectorAll("[data-range]")) {
    if (input.value !== "" && Number.isFinite(input.valueAsNumber)) {
      query[input.dataset.end][input.dataset.range] = input.valueAsNumber;
    }
  }
  state.query = clean(query);
}

function writeFilters() {
  const query = state.query;
  byId("words").value = query.words ?? "";
  byId("place").value = query.place ?? "";
  byId("fate").value = query.fates ? JSON.stringify(query.fates) : "";
  byId("order").value = query.order ?? "plan";
  byId("descending").checked = Boolean(query.descending);
  for (const name of ["excluded", "flagged", "noted"]) {
    byId(name).value = query[name] === undefined ? "" : query[name] ? "yes" : "no";
  }
  for (const input of document.querySelectorAll("[data-range]")) {
    input.value = query[input.dataset.end]?.[input.dataset.range] ?? "";
  }
  writeClasses();
}

function writeClasses() {
  const chips = (state.query.classes ?? []).map((id) => {
    const known = state.classes.find((each) => each.id === id);
    const chip = make("button", { type: "button", class: "chip", title: "take back" },
      make("bdi", {}, known ? known.name : `class ${id}`), " ×");
    chip.addEventListener("click", () => {
      state.query = clean({ ...state.query, classes: state.query.classes.filter((each) => each !== id) });
      writeClasses();
      again();
    });
    return chip;
  });
  byId("chosen").replaceChildren(...chips);
}

function again() {
  state.start = 0;
  state.selected = 0;
  unpick();
  find();
}

let waiting = 0;
function filtersChanged(event) {
  clearTimeout(waiting);
  if (event.target.id === "class" && event.target.value !== "") {
    const id = Number(event.target.value);
    event.target.value = "";
    state.query = { ...state.query, classes: [...new Set([...(state.query.classes ?? []), id])] };
    writeClasses();
  }
  readFilters();
  // words and numbers are typed letter by letter
  waiting = setTimeout(again, event.target.matches("input:not([type=checkbox])") ? 250 : 0);
}

async function reload() {
  show("");
  unpick();
  try {
    const data = await ask("api/dataset");
    byId("root").textContent = data.root;
    document.title = `${data.root.split("/").pop()} – MagicSeg explorer`;
    const dropped = data.samples - data.written - data.open;
    const shards = (count) => `${count.toLocaleString("en")} ${count === 1 ? "shard" : "shards"}`;
    byId("totals").textContent =
      `${data.written.toLocaleString("en")} written, ${dropped.toLocaleString("en")} dropped, ${shards(data.shards)}` +
      (data.open_shards ? `; ${data.open.toLocaleString("en")} not packed yet, of ${shards(data.open_shards)}` : "");
    state.classes = data.classes;
    options("class", [["", "any"], ...data.classes.map((each) => [each.id, `${each.name} (${each.count})`])]);
    const reasons = data.reasons.map((each) => each.name);
    options("fate", [
      ["", "any"],
      [JSON.stringify(["written"]), `written (${data.written})`],
      ...(data.open ? [[JSON.stringify([OPEN]), `${OPEN} (${data.open})`]] : []),
      ...(reasons.length > 1 ? [[JSON.stringify(reasons), `dropped (${dropped})`]] : []),
      ...data.reasons.map((each) => [JSON.stringify([each.name]), `${each.name} (${each.count})`]),
    ]);
    byId("slices").replaceChildren(...data.slices.map((value) => make("option", { value })));
    const more = data.more_problems ? [`and ${data.more_problems} more`] : [];
    byId("problems").hidden = !data.problems.length;
    byId("problems").replaceChildren(
      ...[...data.problems, ...more].map((each) => make("p", { dir: "auto" }, `Not shown: ${each}`)));
    writeFilters();
    await find();
  } catch (error) {
    show(error.message);
  }
}

// keys

const typing = (target) => target.closest("input:not([type=checkbox]), select, textarea, dialog") !== null;

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && typing(event.target) && !event.target.closest("dialog")) {
    event.target.blur();
    return;
  }
  if (typing(event.target)) return;
  if (event.key === "Enter" && event.target.closest("button:not(.card), summary")) return;
  // what is said is said of the sample that is seen, also while the next one is on its way
  const sample = shownSample() ?? state.samples[state.selected];
  const keys = {
    j: () => step(1),
    k: () => step(-1),
    ArrowRight: () => (event.shiftKey ? extend(1) : step(1)),
    ArrowLeft: () => (event.shiftKey ? extend(-1) : step(-1)),
    s: () => !isOpen() && sample && pickTo(state.selected, false),
    Enter: () => !isOpen() && open(),
    Escape: () => (isOpen() || !picked.size ? close() : unpick()),
    u: undo,
    r: reload,
    "?": () => byId("help").showModal(),
    "/": () => !isOpen() && byId("words").focus(),
    b: () => toggle("boxes"),
    m: () => toggle("masks"),
    c: () => toggle("counterfactual"),
  };
  for (const key of ["f", "x", "n"]) keys[key] = () => sample && act(key, sample);
  for (const key of ["f", "x"]) if (picked.size && !isOpen()) keys[key] = () => actOnMany(key, chosen());
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});

byId("filters").addEventListener("submit", (event) => event.preventDefault());
for (const name of ["filters", "order", "descending"]) byId(name).addEventListener("input", filtersChanged);
byId("clear").addEventListener("click", () => {
  state.query = {};
  writeFilters();
  again();
});
byId("before").addEventListener("click", () => {
  state.start = Math.max(0, state.start - PAGE);
  state.selected = 0;
  find();
});
byId("after").addEventListener("click", () => {
  state.start += PAGE;
  state.selected = 0;
  find();
});
for (const button of document.querySelectorAll("#many [data-act]")) {
  button.addEventListener("click", () => actOnMany(button.dataset.act, chosen()));
}
byId("unpick").addEventListener("click", unpick);
byId("reload").addEventListener("click", reload);
byId("keys").addEventListener("click", () => byId("help").showModal());
byId("help-close").addEventListener("click", () => byId("help").close());
for (const name of ["excluded", "flagged", "noted"]) {
  options(name, [["", "any"], ["yes", "yes"], ["no", "no"]]);
}
if (matchMedia("(max-width: 760px)").matches) byId("panel").open = false;

const { start = 0, open: opened, ...query } = remembered();
state.query = query;
state.start = Number.isInteger(start) && start > 0 ? start : 0;
await reload();
if (opened) {
  const at = state.samples.findIndex((each) => each.key === opened);
  if (at >= 0) {
    select(at);
    await open();
  }
}
