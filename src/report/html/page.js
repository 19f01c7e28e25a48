
"use strict";
const LEVELS = ["critical", "high", "medium", "low", "informational"];
const BUCKETS_MAX = 96;
const FACETS_MAX = 8;
const FACETS_OPEN_MAX = 200;
const ROWS_STEP = 100;
const PRINTED_MAX = 1000;
const NICE_MS = [1, 10, 100, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5, 18e5, 36e5, 72e5, 108e5,
  216e5, 432e5, 864e5, 1728e5, 6048e5];

const $ = (id) => document.getElementById(id);
const blocks = [...document.querySelectorAll("script.alerts")];
const summary = JSON.parse($("summary").textContent);
const rows = [];
const filter = { levels: new Set(), rule: null, actor: null, from: null, to: null, words: [] };
const sort = { by: "time", down: false };
let shown = [];
let drawn = 0;
const unfolded = new Set();
let buckets = { start: 0, width: 1, count: 1 };

/* Text becomes text nodes only: no value is ever parsed as markup. */
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "onclick") node.addEventListener("click", value);
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
const number = (n) => n.toLocaleString("en");
const plural = (n, noun) => number(n) + " " + noun + (n === 1 ? "" : "s");
const instant = (ms) => new Date(ms).toISOString().replace("T", " ");
const clock = (ms, width) => instant(ms).slice(0, width >= 864e5 ? 10 : width >= 6e4 ? 16 : 19);

function load() {
  const rules = new Map();
  blocks.forEach((block, at) => {
    block.textContent.trim().split("\n").forEach((line, index) => {
      const alert = JSON.parse(line);
      const rule = alert.rule;
      if (!rules.has(rule.id)) rules.set(rule.id, rule);
      const actor = alert.actor.username || "";
      const techniques = alert.attack.map((attack) => attack.technique).filter(Boolean);
      rows.push({
        block: at, index, order: rows.length, time: Date.parse(alert.time),
        level: LEVELS.indexOf(rule.level), rule: rules.get(rule.id), actor,
        techniques: techniques.join(" "), address: alert.actor.source_ip || "",
        summary: alert.summary, count: alert.count,
        text: [alert.summary, rule.title, rule.id, actor, alert.actor.source_ip, alert.actor.user_agent,
          alert.request.uri, alert.cluster, techniques.join(" "), rule.level, alert.id]
          .filter(Boolean).join("\n").toLowerCase(),
      });
    });
  });
}

/* Whether a row passes every filter but the one named, whose own counts must not depend on it. */
function passes(row, except) {
  return (except === "level" || !filter.levels.size || filter.levels.has(row.level))
    && (except === "rule" || filter.rule === null || row.rule.id === filter.rule)
    && (except === "actor" || filter.actor === null || row.actor === filter.actor)
    && (except === "time" || filter.from === null || (row.time >= filter.from && row.time < filter.to))
    && filter.words.every((word) => row.text.includes(word));
}

function levelParts(counts, total) {
  return LEVELS.map((level, at) => {
    if (!counts[at]) return null;
    const part = el("i", { class: level });
    part.style.flexGrow = "0";
    part.style.flexShrink = "0";
    part.style.flexBasis = (100 * counts[at]) / total + "%";
    return part;
  });
}
const spelled = (counts) =>
  LEVELS.map((level, at) => (counts[at] ? number(counts[at]) + " " + level : "")).filter(Boolean).join(", ") || "none";

function drawLevels() {
  const counts = LEVELS.map(() => 0);
  for (const row of rows) if (passes(row, "level")) counts[row.level] += 1;
  $("levels").replaceChildren(...LEVELS.map((level, at) => el(
    "button",
    {
      type: "button", class: level, "aria-pressed": filter.levels.has(at),
      onclick: () => { if (!filter.levels.delete(at)) filter.levels.add(at); update("levels", at); },
    },
    el("b", {}, number(counts[at])), el("span", {}, level),
  )));
}

function drawTimeline() {
  const { start, width, count } = buckets;
  const counts = Array.from({ length: count }, () => LEVELS.map(() => 0));
  for (const row of rows) {
    if (passes(row, "time")) counts[Math.floor((row.time - start) / width)][row.level] += 1;
  }
  const totals = counts.map((parts) => parts.reduce((sum, part) => sum + part, 0));
  const most = Math.max(1, ...totals);
  $("timeline").replaceChildren(...counts.map((parts, at) => {
    const from = start + at * width;
    const label = clock(from, width) + " UTC: " + spelled(parts);
    const inside = filter.from !== null && from >= filter.from && from < filter.to;
    const button = el("button", {
      type: "button", "aria-label": label, "aria-pressed": inside, tabindex: at ? "-1" : "0",
      onclick: (event) => pickTime(at, from, event.shiftKey),
    }, ...levelParts(parts, most));
    for (const kind of ["focus", "mouseenter"]) {
      button.addEventListener(kind, () => { $("bucket").textContent = label; });
    }
    return button;
  }));
  const middle = start + Math.floor(count / 2) * width;
  $("axis").replaceChildren(...[start, middle, start + count * width].map((ms) => el("span", {}, clock(ms, width))));
  $("bucket").textContent = "Tallest bar: " + plural(most, "alert") + " in " + span(width);
}

function span(ms) {
  for (const [unit, size] of [["day", 864e5], ["hour", 36e5], ["minute", 6e4], ["second", 1e3]]) {
    if (ms >= size && ms % size === 0) return plural(ms / size, unit);
  }
  return number(ms) + " ms";
}

function pickTime(at, from, extend) {
  const to = from + buckets.width;
  if (extend && filter.from !== null) {
    filter.from = Math.min(filter.from, from);
    filter.to = Math.max(filter.to, to);
  } else if (filter.from === from && filter.to === to) {
    filter.from = filter.to = null;
  } else {
    filter.from = from;
    filter.to = to;
  }
  update("timeline", at);
}

/* By the number of critical alerts, then of high ones, and so on. */
function moreSevere(a, b) {
  const at = LEVELS.findIndex((_, level) => a.counts[level] !== b.counts[level]);
  return at < 0 ? (a.label < b.label ? -1 : 1) : b.counts[at] - a.counts[at];
}

function drawFacet(id, key, name) {
  const found = new Map();
  for (const row of rows) {
    if (!passes(row, id)) continue;
    const value = key(row);
    if (!found.has(value)) found.set(value, { value, label: name(row), counts: LEVELS.map(() => 0), total: 0 });
    const facet = found.get(value);
    facet.counts[row.level] += 1;
    facet.total += 1;
  }
  const all = [...found.values()].sort(moreSevere);
  const most = all.reduce((most, facet) => Math.max(most, facet.total), 1);
  const limit = unfolded.has(id) ? FACETS_OPEN_MAX : FACETS_MAX;
  const top = all.filter((facet, at) => at < limit || facet.value === filter[id]);
  const target = $(id + "s");
  target.replaceChildren(...top.map((facet, at) => el(
    "button",
    {
      type: "button", class: "facet", title: facet.label + ": " + spelled(facet.counts),
      "aria-pressed": filter[id] === facet.value,
      onclick: () => { filter[id] = filter[id] === facet.value ? null : facet.value; update(id + "s", at); },
    },
    el("span", {}, facet.label),
    el("span", { class: "meter", "aria-hidden": "true" }, ...levelParts(facet.counts, most)),
    el("span", {}, number(facet.total)),
  )));
  const left = number(all.length - top.length);
  if (all.length > top.length && limit === FACETS_MAX) {
    const more = () => { unfolded.add(id); update(id + "s", FACETS_MAX); };
    target.append(el("button", { type: "button", class: "facet small", onclick: more }, "Show " + left + " more"));
  } else if (all.length > top.length) {
    target.append(el("p", { class: "small" }, "and " + left + " more: search to find them"));
  }
}

function drawChips() {
  const chips = [];
  const chip = (label, clear) => chips.push(el("button", {
    type: "button", class: "chip", "aria-label": "Remove filter " + label, title: label,
    onclick: () => { clear(); update(); $("search").focus(); },
  }, label + " ✕"));
  if (filter.rule !== null) {
    const row = rows.find((row) => row.rule.id === filter.rule);
    chip(row ? row.rule.title : filter.rule, () => { filter.rule = null; });
  }
  if (filter.actor !== null) chip(filter.actor || "(no user name)", () => { filter.actor = null; });
  if (filter.from !== null) {
    chip(clock(filter.from, buckets.width) + " – " + clock(filter.to, buckets.width), () => { filter.from = filter.to = null; });
  }
  for (const at of filter.levels) chip(LEVELS[at], () => filter.levels.delete(at));
  $("chips").replaceChildren(...chips);
}

const COLUMNS = [
  ["time", "Time (UTC)", (row) => row.time],
  ["level", "Level", (row) => row.level],
  ["rule", "Rule", (row) => row.rule.title],
  ["actor", "Actor", (row) => row.actor],
  ["summary", "What happened", (row) => row.summary],
];

function drawHead() {
  document.querySelector("thead tr").replaceChildren(...COLUMNS.map(([id, label], at) => {
    const active = sort.by === id;
    return el("th", { scope: "col", "aria-sort": active ? (sort.down ? "descending" : "ascending") : null }, el("button", {
      type: "button",
      onclick: () => {
        sort.down = active ? !sort.down : false;
        sort.by = id;
        update();
        document.querySelectorAll("thead button")[at].focus();
      },
    }, label + (active ? (sort.down ? " ↓" : " ↑") : "")));
  }));
}

function select() {
  const key = COLUMNS.find(([id]) => id === sort.by)[2];
  const turn = sort.down ? -1 : 1;
  shown = rows.filter((row) => passes(row, null)).map((row) => [key(row), row]);
  shown.sort(([a, x], [b, y]) => (a < b ? -turn : a > b ? turn : x.order - y.order));
  shown = shown.map(([, row]) => row);
  drawn = 0;
  document.querySelector("tbody").replaceChildren();
  $("shown").textContent = shown.length === rows.length
    ? plural(rows.length, "alert") : number(shown.length) + " of " + plural(rows.length, "alert");
  drawRows(ROWS_STEP);
}

function drawRows(step) {
  const body = document.querySelector("tbody");
  const more = shown.slice(drawn, drawn + step);
  drawn += more.length;
  body.append(...more.map(drawRow));
  if (!shown.length) {
    const words = rows.length ? "No alert passes the filters." : "No alerts: no event matched a rule.";
    body.replaceChildren(el("tr", {}, el("td", { colspan: COLUMNS.length }, words)));
  }
  $("more").hidden = drawn >= shown.length;
}

function drawRow(row) {
  const open = el("button", { type: "button", class: "open", "aria-expanded": "false" }, instant(row.time).slice(0, 19));
  const level = LEVELS[row.level];
  const times = row.count > 1 ? " ×" + number(row.count) : "";
  const line = el("tr", { class: "row" },
    el("td", {}, open),
    el("td", {}, el("span", { class: "badge " + level }, level)),
    el("td", {}, el("span", { class: "clamp" }, row.rule.title + times), el("span", { class: "small clamp" }, row.techniques)),
    el("td", {}, el("span", { class: "clamp" }, row.actor || "(no user name)"), el("span", { class: "small clamp" }, row.address)),
    el("td", {}, el("span", { class: "clamp" }, row.summary)));
  line.addEventListener("click", (event) => {
    if (event.target !== open && String(getSelection())) return;
    const opened = open.getAttribute("aria-expanded") === "true";
    open.setAttribute("aria-expanded", String(!opened));
    if (opened) line.nextSibling.remove();
    else line.after(el("tr", { class: "detail " + level }, el("td", { colspan: COLUMNS.length }, detail(row))));
  });
  return line;
}

/* Reads an alert again out of its block: only opened alerts are kept whole. */
function detail(row) {
  const alert = JSON.parse(blocks[row.block].textContent.trim().split("\n")[row.index]);
  const { actor, request, rule } = alert;
  const addresses = actor.source_ips.map((ip) => (ip === actor.source_ip ? ip + " (trusted)" : ip));
  const attack = alert.attack.map((one) => [one.technique, one.tactics.join(", ")].filter(Boolean).join(": "));
  const resource = [request.resource, request.subresource].filter(Boolean).join("/");
  return el("div", { class: "parts" },
    alert.runbook ? part("", true, el("p", {}, el("b", {}, "Next: "), alert.runbook)) : null,
    part("Why it matched", true, list(["Field", "Value", "Asked"], alert.reason.map((one) => [one.field, one.value, one.matched]))),
    part("Who", false, facts([
      ["User", actor.username], ["Kind", (actor.kind || "").replace("_", " ")], ["Acting as", actor.impersonated],
      ["Groups", actor.groups.join(", ")], ["Addresses", addresses.join(", ")],
      ["User agent", actor.user_agent], ["Credential", actor.credential_id],
    ])),
    part("Request", false, facts([
      ["Verb", request.verb], ["URI", request.uri], ["Resource", resource], ["API group", request.api_group],
      ["Namespace", request.namespace], ["Name", request.name], ["Decision", request.decision],
      ["Answer", request.code === undefined ? "" : String(request.code)],
    ])),
    part("Rule", false, facts([
      ["Id", rule.id], ["Tags", rule.tags.join(", ")], ["ATT&CK", attack.join("; ")],
      ["Kind", alert.kind], ["Cluster", alert.cluster], ["Alert id", alert.id],
    ])),
    part(evidenceTitle(alert), true, list(["Time", "Stage", "Audit id", "Position"],
      alert.events.map((event) => [event.time.replace("T", " "), event.stage, event.audit_id, event.position]))),
    part("", true, el("details", {}, el("summary", {}, "Alert as JSON"), el("pre", {}, JSON.stringify(alert, null, 2)))));
}

function evidenceTitle(alert) {
  if (alert.count <= alert.events.length) return "Evidence: " + plural(alert.count, "event");
  return "Evidence: the first and the last " + alert.events.length / 2 + " of " + plural(alert.count, "event");
}

function part(title, wide, ...content) {
  return el("div", { class: wide ? "wide" : "" }, title ? el("h3", {}, title) : null, ...content);
}

function facts(pairs) {
  return el("dl", {}, ...pairs.filter(([, value]) => value).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function list(head, lines) {
  return el("table", { class: "list" }, el("tbody", {},
    el("tr", {}, ...head.map((name) => el("th", { scope: "col" }, name))),
    ...lines.map((line) => el("tr", {}, ...line.map((value, at) => el("td", { "data-label": head[at] }, value))))));
}

/* Draws everything again and gives the focus back to the control that was used. */
function update(id, at) {
  drawLevels();
  drawTimeline();
  drawFacet("rule", (row) => row.rule.id, (row) => row.rule.title);
  drawFacet("actor", (row) => row.actor, (row) => row.actor || "(no user name)");
  drawChips();
  drawHead();
  select();
  const used = id && $(id).querySelectorAll("button")[at];
  if (used) used.focus();
}

function drawRun() {
  const period = summary.first_event_at
    ? ", " + [summary.first_event_at, summary.last_event_at].map((time) => time.slice(0, 19).replace("T", " ")).join(" to ") + " UTC" : "";
  $("scope").textContent = plural(summary.alerts, "alert") + " in " + plural(summary.events, "event") + " of "
    + plural(summary.files, "file") + period + ", " + plural(summary.rules, "rule");
  const left = [];
  const places = (names, total) => names.join(", ") + (total > names.length ? " and " + number(total - names.length) + " more" : "");
  if (summary.files_skipped) left.push(["Skipped files without audit events", places(summary.skipped, summary.files_skipped)]);
  if (summary.events_duplicate) left.push(["Duplicate events, not counted", number(summary.events_duplicate)]);
  if (summary.events_salvaged) left.push(["Cut events, used up to the cut", number(summary.events_salvaged)]);
  for (const [reason, rejects] of Object.entries(summary.rejects_by_reason)) {
    left.push(["Rejected, " + reason, number(rejects.count) + " at " + places(rejects.positions, rejects.count)]);
  }
  for (const [limit, times] of Object.entries(summary.evictions)) {
    left.push(["Limit " + limit + " reached", plural(times, "time") + ": results may lack what it forgot"]);
  }
  if (!left.length) return;
  $("run").replaceChildren(el("section", {}, el("h2", {}, "What the run could not use"),
    el("ul", {}, ...left.map(([what, value]) => el("li", {}, el("b", {}, what + ": "), value)))));
}

function start() {
  load();
  const times = rows.map((row) => row.time);
  const first = times.reduce((a, b) => Math.min(a, b), times.length ? times[0] : 0);
  const last = times.reduce((a, b) => Math.max(a, b), first);
  let width = NICE_MS.find((size) => (last - first) / size < BUCKETS_MAX - 1);
  if (!width) width = 6048e5 * Math.ceil((last - first) / 6048e5 / (BUCKETS_MAX - 1));
  const begin = Math.floor(first / width) * width;
  buckets = { start: begin, width, count: Math.floor((last - begin) / width) + 1 };
  drawRun();
  for (const node of document.querySelectorAll(".panels, #timeline-section")) node.hidden = !rows.length;
  update();
  let typing = 0;
  $("search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      filter.words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
      update();
    }, 150);
  });
  $("timeline").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const next = step && document.activeElement[step < 0 ? "previousElementSibling" : "nextElementSibling"];
    if (next) next.focus();
  });
  $("more").addEventListener("click", () => drawRows(ROWS_STEP));
  new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting) && drawn < shown.length) drawRows(ROWS_STEP);
  }, { rootMargin: "600px" }).observe($("more"));
  addEventListener("beforeprint", () => drawRows(Math.max(0, PRINTED_MAX - drawn)));
  $("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
}
start();
