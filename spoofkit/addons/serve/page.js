"use strict";
const main = document.getElementById("main"), results = document.getElementById("results");
const files = document.getElementById("files"), drop = document.getElementById("drop");
const status = document.getElementById("status"), clear = document.getElementById("clear");
const key = document.getElementById("key"), channels = document.getElementById("channels");
const can = { score: main.dataset.scores === "1", localize: main.dataset.localizes === "1" };
const VERDICTS = {
  accept: ["✓", "Accepted as genuine"],
  reject: ["✕", "Rejected as spoofed"],
  abstain: ["?", "No decision"],
};
const SVG = "http://www.w3.org/2000/svg", MOST_POINTS = 2000, MOST_TRIES = 120;
const waiting = [];
let isAsking = false, nDone = 0;

const make = (tag, properties = {}, ...inside) => {
  const one = Object.assign(document.createElement(tag), properties);
  one.append(...inside);
  return one;
};
const draw = (tag, attributes) => {
  const one = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) one.setAttribute(name, value);
  return one;
};
const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));
const number = (value, digits = 4) => String(Number(value.toPrecision(digits))).replace("-", "−");
const clock = (seconds) => seconds < 60 ? String(Number(seconds.toFixed(3)))
  : `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
const span = (region) => `${region.start_seconds.toFixed(2)}–${region.end_seconds.toFixed(2)} s`;

const ask = async (path, file, say) => {
  const query = channels.value ? `?channels=${channels.value}` : "";
  for (let tries = 1; ; tries++) {
    const headers = { "X-File-Name": encodeURIComponent(file.name) };
    if (key && key.value) headers.Authorization = `Bearer ${key.value.trim()}`;
    let answer;
    try {
      answer = await fetch(`/v1/${path}${query}`, { method: "POST", headers, body: file });
    } catch (error) {
      throw new Error("the service does not answer, or the file cannot be read any more");
    }
    if (answer.ok) return answer.json();
    if (answer.status === 429 && tries < MOST_TRIES) {
      say("waits for a turn");
      await pause(Number(answer.headers.get("Retry-After")) || 1);
      continue;
    }
    const problem = await answer.json().catch(() => ({ detail: `status ${answer.status}` }));
    if (answer.status === 401 && key) key.focus();
    throw new Error(problem.detail);
  }
};

const facts = (channel) => {
  const list = make("dl");
  const add = (name, value) => list.append(make("dt", { textContent: name }), make("dd", { textContent: value }));
  if (channel.llr !== null) add("Log-likelihood ratio", `${number(channel.llr)} (higher = more likely genuine)`);
  if (channel.score !== null) add("Score", number(channel.score));
  if (channel.seconds) add("Scored", `${channel.seconds.toFixed(2)} s`);
  if (channel.speech_seconds !== null) add("Speech", `${channel.speech_seconds.toFixed(2)} s`);
  for (const remark of channel.remarks) add("Remark", remark);
  return list;
};

const verdict = (channel) => {
  const [sign, words] = VERDICTS[channel.decision] || ["–", channel.score === null ? "No score" : "No decision"];
  const kind = channel.decision || (channel.score === null ? "failed" : "none");
  const parts = [make("p", { className: `verdict ${kind}` }, make("span", { ariaHidden: "true", textContent: `${sign} ` }), words)];
  const why = channel.why_no_decision;
  const said = channel.probability_in_words;
  if (said) parts.push(make("p", { className: "words", textContent: `${said[0].toUpperCase()}${said.slice(1)}.` }));
  if (why) parts.push(make("p", { className: "words", textContent: `Why: ${why}.` }));
  return parts;
};

const ticks = (seconds) => {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800];
  const step = steps.find((one) => seconds / one <= 8) || seconds;
  const axis = make("div", { className: "axis", ariaHidden: "true" });
  for (let at = 0; at <= 0.97 * seconds; at += step) {
    const tick = make("span", { textContent: at ? clock(at) : "0 s" });
    tick.style.left = `${100 * at / seconds}%`;
    axis.append(tick);
  }
  return axis;
};

// Points [seconds, score] as a path; of many, the extremes of each stretch.
const curve = (points, seconds, low, high) => {
  const each = Math.ceil(points.length / MOST_POINTS);
  const y = (score) => (100 * (high - score) / (high - low)).toFixed(1);
  let path = "";
  for (let from = 0; from < points.length; from += each) {
    const part = points.slice(from, from + each), scores = part.map((point) => point[1]);
    path += `${path ? "L" : "M"}${(1000 * part[0][0] / seconds).toFixed(1)} ${y(Math.max(...scores))}`;
    if (part.length > 1) path += `V${y(Math.min(...scores))}`;
  }
  return path;
};

const player = (file) => {
  const audio = make("audio", { controls: true, preload: "metadata", src: URL.createObjectURL(file) });
  audio.addEventListener("error", () => { audio.hidden = true; });
  audio.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
  });
  return audio;
};

const timeline = (label, points, lines, seconds, regions, audio) => {
  const values = [...points.map((point) => point[1]), ...lines];
  const margin = Math.max(0.05 * (Math.max(...values) - Math.min(...values)), 0.1);
  const low = Math.min(...values) - margin, high = Math.max(...values) + margin;
  const svg = draw("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", role: "img", "aria-label": label });
  for (const line of lines) {
    const y = 100 * (high - line) / (high - low);
    svg.append(draw("line", { x1: 0, x2: 1000, y1: y, y2: y }));
  }
  svg.append(draw("path", { d: curve(points, seconds, low, high) }));
  const head = make("div", { className: "head" });
  const track = make("div", { className: "track" }, svg,
    make("span", { className: "bound top", textContent: number(high, 3), ariaHidden: "true" }),
    make("span", { className: "bound bottom", textContent: number(low, 3), ariaHidden: "true" }));
  const list = make("ul", { className: "list" });
  let end = null;
  const play = (region) => {
    audio.currentTime = region.start_seconds;
    end = region.end_seconds;
    audio.play().catch(() => { status.textContent = "This browser cannot play this recording."; });
  };
  for (const region of regions) {
    const band = make("button", { type: "button", className: "band", tabIndex: -1, title: span(region), ariaLabel: `Play ${span(region)}` });
    band.style.left = `${100 * region.start_seconds / seconds}%`;
    band.style.width = `${100 * (region.end_seconds - region.start_seconds) / seconds}%`;
    band.addEventListener("click", () => play(region));
    const chip = make("button", { type: "button", className: "chip" }, span(region),
      make("span", { className: "soft", textContent: ` score ${number(region.mean_score, 3)}` }));
    chip.setAttribute("aria-label", `Play ${span(region)}, score ${number(region.mean_score, 3)}`);
    chip.addEventListener("click", () => play(region));
    track.append(band);
    list.append(make("li", {}, chip));
  }
  track.append(head);
  track.addEventListener("click", (event) => {
    if (event.target.closest("button")) return;
    const box = track.getBoundingClientRect();
    end = null;
    audio.currentTime = seconds * (event.clientX - box.left) / box.width;
  });
  audio.addEventListener("timeupdate", () => {
    head.style.left = `${100 * audio.currentTime / seconds}%`;
    if (end !== null && audio.currentTime >= end) {
      end = null;
      audio.pause();
    }
  });
  return [track, ticks(seconds), ...(regions.length ? [list] : [])];
};

const ofFrames = (marked, audio) => {
  if (marked.error) return [make("p", { textContent: `Timeline: ${marked.error}.` })];
  const { score, first_centre_seconds: first, hop_seconds: hop } = marked.frames;
  const points = score.map((value, at) => [first + at * hop, value]);
  const n = marked.regions.length;
  const counted = n ? `${n} ${marked.label} region${n === 1 ? "" : "s"}, ${marked.marked_seconds.toFixed(2)} s together` : `no ${marked.label} region`;
  const doubt = marked.threshold_is_fitted ? "" : " The threshold was not fitted on any data: what is marked shows where scores are low, not that these regions are spoofed.";
  const said = `Timeline: ${counted}; frames at or below the dashed line (${number(marked.threshold)}) are marked.${doubt}`;
  const label = `Frame scores over ${marked.seconds.toFixed(1)} s, with the threshold; ${counted}`;
  return [make("p", { className: "soft", textContent: said }), ...timeline(label, points, [marked.threshold], marked.seconds, marked.regions, audio)];
};

const ofWindows = (channel, audio) => {
  const value = (one) => one.llr === null ? one.score : one.llr;
  const points = channel.windows.flatMap((one) => [[one.start_seconds, value(one)], [one.end_seconds, value(one)]]);
  const lines = [...new Set([main.dataset.acceptFrom, main.dataset.rejectBelow].filter((text) => text !== "").map(Number))];
  const rows = channel.windows.map((one) => make("tr", {}, make("td", { textContent: span(one) }),
    make("td", { className: "number", textContent: number(value(one)) })));
  const head = make("tr", {}, make("th", { scope: "col", textContent: "window" }),
    make("th", { scope: "col", className: "number", textContent: channel.llr === null ? "score" : "LLR" }));
  const label = `Scores of ${channel.windows.length} windows over ${channel.seconds.toFixed(1)} s; the table below has them`;
  return [make("p", { className: "soft", textContent: "Timeline: each window has a score; a dashed line is a threshold." }),
    ...timeline(label, points, lines, channel.seconds, [], audio),
    make("details", {}, make("summary", { textContent: "Windows as a table" }), make("table", {}, head, ...rows))];
};

const show = (article, heading, scored, marked, file) => {
  const audio = player(file), both = (marked || scored).channels.length > 1;
  article.replaceChildren(heading);
  article.setAttribute("aria-busy", "false");
  (marked || scored).channels.forEach((_, at) => {
    const channel = scored ? scored.channels[at] : null, timed = marked ? marked.channels[at] : null;
    if (both) article.append(make("h3", { textContent: `Channel ${(channel || timed).channel}` }));
    if (channel) article.append(...verdict(channel), facts(channel));
    if (timed && !(channel && timed.error === channel.error && timed.error)) article.append(...ofFrames(timed, audio));
    if (!timed && channel.windows.length) article.append(...ofWindows(channel, audio));
  });
  const of = scored || marked;
  article.append(audio, make("p", { className: "soft" }, "SHA-256 of the recording ", make("code", { textContent: of.audio_sha256 })));
  const said = scored ? scored.channels.map((one) => (VERDICTS[one.decision] || ["", "scored"])[1]).join("; ") : "marked";
  return said;
};

const next = async () => {
  if (isAsking) return;
  isAsking = true;
  while (waiting.length) {
    const { file, article, heading } = waiting.shift();
    const say = (text) => { article.lastChild.textContent = text; };
    say("is being scored …");
    status.textContent = `${file.name} is being scored.`;
    try {
      const scored = can.score ? await ask("score", file, say) : null;
      const marked = can.localize ? await ask("localize", file, say) : null;
      status.textContent = `${file.name}: ${show(article, heading, scored, marked, file)}.`;
    } catch (error) {
      article.replaceChildren(heading, make("p", { className: "verdict failed", textContent: "Not scored" }),
        make("p", { className: "words", textContent: `Why: ${error.message}.` }));
      article.setAttribute("aria-busy", "false");
      status.textContent = `${file.name} was not scored: ${error.message}.`;
    }
  }
  isAsking = false;
};

const take = (chosen) => {
  for (const file of chosen) {
    const heading = make("h2", { id: `recording-${++nDone}`, textContent: file.name });
    const article = make("article", { className: "recording" }, heading, make("p", { className: "soft", textContent: "waits …" }));
    article.setAttribute("aria-labelledby", heading.id);
    article.setAttribute("aria-busy", "true");
    results.append(article);
    waiting.push({ file, article, heading });
  }
  clear.hidden = !results.children.length;
  next();
};

files.addEventListener("change", () => {
  take([...files.files]);
  files.value = "";
});
document.getElementById("form").addEventListener("submit", (event) => event.preventDefault());
clear.addEventListener("click", () => {
  for (const audio of results.querySelectorAll("audio")) URL.revokeObjectURL(audio.src);
  waiting.length = 0;
  results.replaceChildren();
  clear.hidden = true;
  status.textContent = "All results were removed.";
  files.focus();
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
  });
}
addEventListener("drop", (event) => take([...event.dataTransfer.files]));
