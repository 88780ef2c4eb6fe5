// What both parts of the page use: elements, questions to the server, changes and their undoing.

/** The fate of a sample whose shard is not packed yet. */
export const OPEN = "not packed yet";

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

/** Tell something, with buttons beside it; it is trouble unless it says otherwise. */
function tell(text, trouble, ...buttons) {
  const place = byId("message");
  place.replaceChildren();
  place.hidden = !text;
  place.classList.toggle("told", !trouble);
  if (!text) return;
  const close = make("button", { type: "button", ariaLabel: "close" }, "×");
  close.addEventListener("click", () => show(""));
  place.append(make("span", { dir: "auto" }, text), make("span", { class: "buttons" }, ...buttons, close));
}

export const show = (text) => tell(text, true);

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
  const error = new Error(why || `the explorer answers ${answer.status}`);
  error.isRefusal = answer.status === 400;
  throw error;
}

export const number = (value) =>
  value === null || value === undefined ? "–" : Number(value).toLocaleString("en", { maximumFractionDigits: 3 });

export const picture = (sample, kind, more = "") =>
  `api/samples/${encodeURIComponent(sample.key)}/${kind}?v=${sample.version}${more}`;

/** Who is told of a change: of the sample as it is now, or (of many) that all are to be asked for again. */
const listeners = [];
export const onChange = (listener) => listeners.push(listener);
const renewers = [];
export const onRenew = (renewer) => renewers.push(renewer);
const renew = () => Promise.all(renewers.map((each) => each()));

/** The acts of this tab that can be taken back. */
const acts = [];

const send = (path, fields) =>
  ask(path, {
    method: "POST",
    headers: { "content-type": "application/json", "x-magicseg": "1" },
    body: JSON.stringify(fields),
  });

async function change(wanted) {
  try {
    const { act: done, ...sample } = await send("api/change", wanted);
    if (done) acts.push(done);
    show("");
    for (const listener of listeners) listener(sample);
  } catch (error) {
    show(error.message);
  }
}

export async function undo() {
  const last = acts.pop();
  if (!last) {
    show("nothing was changed here that could be undone");
    return;
  }
  try {
    const { count } = await send("api/undo", { act: last });
    await renew();
    if (count === 0) tell("Nothing was taken back: somebody has said something else since.", false);
    else if (count === 1) show("");
    else tell(`${counted(count)} as before.`, false);
  } catch (error) {
    if (!error.isRefusal) acts.push(last); // it may work later
    show(error.message);
  }
}

const counted = (count) => `${count.toLocaleString("en")} ${count === 1 ? "sample" : "samples"}`;

/** What can be said of many samples: the question, what those are that it leaves alone, and the answer. */
const MANY = {
  exclude: ["Leave out", "excluded already", "excluded", "Why are they to be left out?"],
  include: ["Take back in", "not excluded", "taken back in", ""],
  flag: ["Flag", "flagged already", "flagged", ""],
  unflag: ["Take back the flags of", "not flagged", "without a flag now", ""],
};

function others(outlook, already) {
  const rest = [
    [outlook.already, already],
    [outlook.dropped, "dropped on the way: in no tar, nothing to leave out"],
    [outlook.gone, "not in the dataset any more"],
  ];
  const words = rest.filter(([count]) => count).map(([count, what]) => `${count.toLocaleString("en")} ${what}`);
  return words.length ? ` (The others stay as they are: ${words.join("; ")}.)` : "";
}

/** What the keys x and f turn, and which acts do so: the second one if all are as the first one makes them. */
const TURNS = { x: ["exclude", "include"], f: ["flag", "unflag"] };

async function foresee(wanted, choice) {
  const outlook = await send("api/outlook", { ...choice, act: wanted });
  return { wanted, outlook };
}

async function foreseeTurn(key, choice) {
  const [to, back] = TURNS[key];
  const first = await foresee(to, choice);
  return !first.outlook.count && first.outlook.already ? foresee(back, choice) : first;
}

/** Say something of many samples, once the number has been seen and agreed to.
 *
 * What is wanted is an act, or a key that turns them. The question is there at once, so that keys typed
 * while the samples are counted are no commands.
 */
export async function actOnMany(asked, choice) {
  const question = openQuestion("Counting …", lastReason, asked === "x" || asked === "exclude", false);
  try {
    const { wanted, outlook } = await (asked in TURNS ? foreseeTurn(asked, choice) : foresee(asked, choice));
    const [what, already, done, why] = MANY[wanted];
    const rest = others(outlook, already);
    if (!outlook.count) {
      question.close();
      show(`There is nothing to change.${rest}`);
      return;
    }
    question.become(`${what} ${counted(outlook.count)}?${rest} ${why}`.trim(), Boolean(why));
    const answer = await question.answer;
    if (answer === null) return;
    if (why) lastReason = answer;
    const text = why ? answer : "taken back in the explorer";
    tell(`Writing ${counted(outlook.count)} …`, false);
    const change = await send("api/changes", { ...choice, act: wanted, text, count: outlook.count });
    acts.push(change.act);
    await renew();
    const back = make("button", { type: "button" }, "Undo (u)");
    back.addEventListener("click", () =>
      acts.at(-1) === change.act ? undo() : show("other changes were made since: undo (u) them first"));
    tell(`${counted(change.count)} ${done}.`, false, back);
  } catch (error) {
    question.close();
    show(error.message);
  }
}

/** Open a question; its answer is a text, or null if it was cancelled.
 *
 * Without a text it is answered by yes or no; before it is ready it can be cancelled alone.
 */
function openQuestion(label, text, isText = true, isReady = true) {
  const dialog = byId("ask");
  const input = byId("ask-text");
  let answer = null;
  const become = (words, withText) => {
    byId("ask-label").textContent = words;
    input.hidden = !withText;
    byId("ask-yes").textContent = withText ? "Save" : "Yes";
    byId("ask-yes").disabled = false;
    if (!withText) byId("ask-yes").focus();
  };
  become(label, isText);
  byId("ask-yes").disabled = !isReady;
  input.value = text;
  byId("ask-form").onsubmit = (event) => {
    event.preventDefault();
    if (byId("ask-yes").disabled) return;
    answer = input.value;
    dialog.close();
  };
  input.onkeydown = (event) => {
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      if (!byId("ask-yes").disabled) byId("ask-form").requestSubmit();
    }
  };
  byId("ask-no").onclick = () => dialog.close();
  const answered = new Promise((resolve) => {
    dialog.onclose = () => resolve(answer);
  });
  dialog.showModal();
  if (isText) input.select();
  return { answer: answered, become, close: () => dialog.close() };
}

const prompted = (label, text) => openQuestion(label, text).answer;

let lastReason = "";

export async function act(key, sample) {
  const name = sample.key;
  if (key === "f") {
    await change({ key: name, act: sample.flagged ? "unflag" : "flag" });
  } else if (key === "n") {
    const text = await prompted(`Note about ${name}; an empty one takes it back`, sample.note);
    if (text !== null) await change({ key: name, act: "note", text });
  } else if (key === "x" && sample.excluded) {
    await change({ key: name, act: "include", text: "taken back in the explorer" });
  } else if (key === "x") {
    const text = await prompted(`Why is ${name} to be left out?`, lastReason);
    if (text === null) return;
    lastReason = text;
    await change({ key: name, act: "exclude", text });
  }
}
