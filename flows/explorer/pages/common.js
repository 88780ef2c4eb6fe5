// What both parts of the page use: elements, questions to the server, changes and their undoing.

export const byId = (id) => document.getElementById(id);

/** Make an element; texts are always texts, never markup. */
export function make(tag, fields = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(fields)) {
    if (name === "class") made.className = value;
    else if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((each) => each !== null && each !== undefined));
  return made;
}

/** Make an element of a drawing. */
export function draw(tag, fields = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(fields)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function show(text) {
  const place = byId("message");
  place.replaceChildren();
  place.hidden = !text;
  if (!text) return;
  const close = make("button", { type: "button", ariaLabel: "close" }, "×");
  close.addEventListener("click", () => show(""));
  place.append(make("span", { dir: "auto" }, text), close);
}

/** Ask the server; what it refuses is told in its words. */
export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the explorer does not answer: it has been stopped; start it again");
  }
  const text = await answer.text();
  if (answer.ok) return JSON.parse(text);
  let why = text;
  try {
    why = JSON.parse(text).error ?? text;
  } catch {
    // words without a frame
  }
  throw new Error(why || `the explorer answers ${answer.status}`);
}

export const number = (value) =>
  value === null || value === undefined ? "–" : Number(value).toLocaleString("en", { maximumFractionDigits: 3 });

export const picture = (sample, kind, more = "") =>
  `api/samples/${encodeURIComponent(sample.key)}/${kind}?v=${sample.version}${more}`;

/** What is told of a change: the sample as it is now. */
const listeners = [];
export const onChange = (listener) => listeners.push(listener);

const undone = [];

async function send(change) {
  const sample = await ask("api/change", {
    method: "POST",
    headers: { "content-type": "application/json", "x-magicseg": "1" },
    body: JSON.stringify(change),
  });
  for (const listener of listeners) listener(sample);
}

async function change(wanted, back) {
  try {
    await send(wanted);
    undone.push(back);
    show("");
  } catch (error) {
    show(error.message);
  }
}

export async function undo() {
  const last = undone.pop();
  if (!last) {
    show("nothing was changed here that could be undone");
    return;
  }
  try {
    await send(last);
    show("");
  } catch (error) {
    show(error.message);
  }
}

/** Ask for a text; null if it was cancelled. */
function prompted(label, text) {
  const dialog = byId("ask");
  const input = byId("ask-text");
  byId("ask-label").textContent = label;
  input.value = text;
  return new Promise((resolve) => {
    let answer = null;
    byId("ask-form").onsubmit = (event) => {
      event.preventDefault();
      answer = input.value;
      dialog.close();
    };
    input.onkeydown = (event) => {
      if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        byId("ask-form").requestSubmit();
      }
    };
    byId("ask-no").onclick = () => dialog.close();
    dialog.onclose = () => resolve(answer);
    dialog.showModal();
    input.select();
  });
}

let lastReason = "";

export async function act(key, sample) {
  const name = sample.key;
  if (key === "f") {
    const [to, back] = sample.flagged ? ["unflag", "flag"] : ["flag", "unflag"];
    await change({ key: name, act: to }, { key: name, act: back });
  } else if (key === "n") {
    const text = await prompted(`Note about ${name}; an empty one takes it back`, sample.note);
    if (text !== null) {
      await change({ key: name, act: "note", text }, { key: name, act: "note", text: sample.note });
    }
  } else if (key === "x" && sample.excluded) {
    const back = { key: name, act: "exclude", text: sample.excluded };
    await change({ key: name, act: "include", text: "taken back in the explorer" }, back);
  } else if (key === "x") {
    const text = await prompted(`Why is ${name} to be left out?`, lastReason);
    if (text === null) return;
    lastReason = text;
    const back = { key: name, act: "include", text: "undone in the explorer" };
    await change({ key: name, act: "exclude", text }, back);
  }
}
