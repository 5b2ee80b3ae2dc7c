"use strict";
// Everything that a run's folder said comes in as data, and goes out as text: by textContent, or escaped for Plotly.
(() => {
  const $ = (id) => document.getElementById(id);
  let data = JSON.parse($("data").textContent);

  // What the user has chosen; new data of a live page leave it alone. Runs are known by their folders.
  const view = {
    sort: null, columns: null, hidden: new Set(), panels: null, grids: 12, kimg: Infinity, kind: "samples",
    reference: null, source: "", objective: null, theme: null,
  };

  // ---------------------------------------------------------------- small things

  function el(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "on") for (const [event, call] of Object.entries(value)) node.addEventListener(event, call);
      else if (name === "colour") node.style.backgroundColor = value;
      else if (value === true) node.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }

  const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  function format(value) {
    if (value === null || value === undefined) return "";
    if (typeof value !== "number") return String(value);
    return Number.isInteger(value) && Math.abs(value) < 1e7 ? String(value) : String(Number(value.toPrecision(4)));
  }

  const unique = (values) => [...new Set(values)];

  function choose(select, options, chosen) { // options: [value, label]
    const same = select.options.length === options.length
      && options.every(([value, label], i) => select.options[i].value === value && select.options[i].text === label);
    if (!same) select.replaceChildren(...options.map(([value, label]) => el("option", { value }, label)));
    if (chosen !== undefined && options.some(([value]) => value === chosen)) select.value = chosen;
  }

  function debounced(call, milliseconds) {
    let timer = 0;
    return () => { clearTimeout(timer); timer = setTimeout(call, milliseconds); };
  }

  // ---------------------------------------------------------------- what can be asked of a run

  const FACTS = {
    name: (run) => run.name, state: (run) => run.state, reason: (run) => run.reason, group: (run) => run.group,
    kimg: (run) => run.kimg, speed: (run) => run.speed,
    protocol: (run) => (run.final ? run.protocol : null),
    sweep: (run) => (run.sweep === null ? null : data.sweeps[run.sweep]), started: (run) => run.started,
    path: (run) => run.path,
  };
  const LABELS = { name: "run", speed: "images/s" };

  function setting(run, key) {
    if (key in run.settings) return run.settings[key];
    return run.whole ? data.shared[key] : undefined;
  }

  const figureName = (figure) => figure.slice(figure.indexOf("/") + 1);
  const bestOf = (run, figure) => (run.best[figure] ? run.best[figure][0] : null);

  // What was varied on the command lines; without that, whatever differs.
  const swept = () => (data.asked.length ? data.asked : data.differing);
  const settingKeys = () => unique([...Object.keys(data.shared), ...data.runs.flatMap((run) => Object.keys(run.settings))]);
  const bestFigures = () => unique(data.runs.flatMap((run) => Object.keys(run.best)));
  const finalFigures = () => unique(data.runs.flatMap((run) => Object.keys(run.scores)));

  // "set:KEY", "best:val/fid", "final:fid", or a fact.
  function valueOf(run, column) {
    const at = column.indexOf(":");
    const kind = column.slice(0, at), key = column.slice(at + 1);
    if (kind === "set") return setting(run, key);
    if (kind === "best") return bestOf(run, key);
    if (kind === "final") return run.final && key in run.scores ? run.scores[key] : null;
    return FACTS[column](run);
  }

  function label(column) {
    const at = column.indexOf(":");
    const kind = column.slice(0, at), key = column.slice(at + 1);
    if (kind === "set") return key;
    if (kind !== "best" && kind !== "final") return LABELS[column] || column;
    const arrow = { lower: " ↓", higher: " ↑" }[data.better[figureName(`/${key}`.slice(key.includes("/") ? 1 : 0))]] || "";
    return `${kind} ${key.replace(/^val\//, "")}${arrow}`;
  }

  const sideOf = (column) => {
    const key = column.slice(column.indexOf(":") + 1);
    return /^(best|final):/.test(column) ? data.better[key.slice(key.indexOf("/") + 1)] : undefined;
  };

  // The column that a word of the filter means: a fact, a figure, a setting or the end of a setting's key.
  function columnNamed(word) {
    if (word in FACTS) return word;
    const keys = settingKeys();
    if (keys.includes(word)) return `set:${word}`;
    const figure = word.replace(/^(best|final)\./, "");
    const final = finalFigures(), best = bestFigures();
    if (word.startsWith("best.") || !final.includes(figure)) {
      const found = best.find((name) => name === `val/${figure}` || name === figure);
      if (found) return `best:${found}`;
    }
    if (final.includes(figure)) return word.startsWith("best.") ? null : `final:${figure}`;
    const ending = keys.filter((key) => key.endsWith(`.${word}`)).sort((a, b) => a.length - b.length);
    return ending.length ? `set:${ending[0]}` : null;
  }

  // ---------------------------------------------------------------- filter and order

  const COMPARE = {
    "=": (a, b) => a === b, "!=": (a, b) => a !== b, "<": (a, b) => a < b, ">": (a, b) => a > b,
    "<=": (a, b) => a <= b, ">=": (a, b) => a >= b,
  };

  function tests(text, said) {
    return (text.match(/(?:[^\s"]|"[^"]*")+/g) || []).map((token) => {
      const plain = token.replace(/"/g, "");
      const match = /^([\w.\/-]+?)(!=|<=|>=|=|<|>|~)(.*)$/s.exec(plain);
      const column = match && columnNamed(match[1]);
      if (match && !column) {
        said.push(`no setting or figure is named ${match[1]}`);
        return () => true;
      }
      if (!match) {
        const wanted = plain.toLowerCase();
        return (run) => [run.name, run.state, run.reason, run.group, ...data.differing.map((key) => format(setting(run, key)))]
          .some((value) => String(value).toLowerCase().includes(wanted));
      }
      const [, , operator, wanted] = match;
      return (run) => {
        const value = valueOf(run, column);
        if (operator === "~") return format(value).toLowerCase().includes(wanted.toLowerCase());
        if (value === null || value === undefined) return operator === "!=" || (operator === "=" && wanted === "");
        const numbers = typeof value === "number" && wanted.trim() !== "" && !Number.isNaN(Number(wanted));
        return numbers
          ? COMPARE[operator](value, Number(wanted))
          : COMPARE[operator](String(value).toLowerCase(), wanted.toLowerCase());
      };
    });
  }

  let visible = [];

  function look() {
    const said = [];
    const all = tests($("filter").value, said);
    visible = data.runs.filter((run) => all.every((test) => test(run)));
    const { column, descending } = view.sort;
    const missing = (value) => value === null || value === undefined || value === "";
    visible.sort((a, b) => {
      const x = valueOf(a, column), y = valueOf(b, column);
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      const order = typeof x === "number" && typeof y === "number"
        ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true });
      return descending ? -order : order;
    });
    said.unshift(visible.length === data.runs.length ? `${data.runs.length} runs` : `${visible.length} of ${data.runs.length} runs`);
    $("filter-said").textContent = said.join("; ");
  }

  // Names without the folders that all of them share; where only a number would be left, the last of these stays.
  let prefix = 0;
  const short = (run) => run.name.slice(prefix);

  function shorten() {
    const names = data.runs.map((run) => run.name.split("/"));
    let same = 0;
    while (names.every((parts) => parts.length > same + 1 && parts[same] === names[0][same])) same += 1;
    const bare = names.every((parts) => parts.length === same + 1);
    const left = names[0].slice(0, Math.max(bare ? same - 1 : same, 0));
    prefix = left.length ? left.join("/").length + 1 : 0;
  }

  const drawn = () => visible.filter((run) => !view.hidden.has(run.path));

  // ---------------------------------------------------------------- colours

  const PALETTE = ["#3b78d8", "#e07b00", "#2e9e5b", "#c63d96", "#8c6bd1", "#b5482f", "#1a9bb0", "#8f8a00", "#6b7785", "#d14b5a"];
  let colours = new Map();

  function dye() {
    const key = $("colour").value === "group" ? (run) => run.group : (run) => run.path;
    const keys = unique(data.runs.map(key));
    const colour = (i) => (keys.length <= PALETTE.length ? PALETTE[i] : `hsl(${Math.round((i * 137.508) % 360)} 62% 52%)`);
    colours = new Map(data.runs.map((run) => [run.path, colour(keys.indexOf(key(run)))]));
    const groups = unique(data.runs.map((run) => run.group));
    const few = $("colour").value === "group" && groups.length <= PALETTE.length && groups.length > 1;
    $("legend").replaceChildren(...(few ? groups.map((group) => el("span", {}, swatch(data.runs.find((run) => run.group === group)), group)) : []));
  }

  const swatch = (run) => el("span", { class: "swatch", "aria-hidden": "true", colour: colours.get(run.path) });

  // ---------------------------------------------------------------- leaderboard

  function defaults() {
    const monitor = data.monitor;
    const curves = bestFigures().filter((figure) => figureName(figure) === monitor);
    const columns = ["name", "state", "kimg", ...curves.map((figure) => `best:${figure}`)];
    if (monitor && data.runs.some((run) => monitor in run.scores)) columns.push(`final:${monitor}`);
    columns.push("speed", "protocol", ...swept().slice(0, 8).map((key) => `set:${key}`));
    view.columns = columns;
    const first = columns.find((column) => column.startsWith("best:")) || columns.find((column) => column.startsWith("final:"));
    view.sort = first ? { column: first, descending: sideOf(first) === "higher" } : { column: "name", descending: false };
    const wanted = [`val/${monitor}`, ...data.main];
    const others = data.figures.filter((figure) => figure.startsWith("val/") && !wanted.includes(figure));
    view.panels = unique([...wanted, ...others, ...data.figures]).filter((figure) => data.figures.includes(figure))
      .slice(0, 4).map((figure) => ({ figure, log: false }));
  }

  function head() {
    const cell = (column) => {
      const numeric = data.runs.some((run) => typeof valueOf(run, column) === "number");
      const sorting = el("button", { type: "button", on: { click: () => sortBy(column) } }, label(column));
      const dropping = column === "name" ? null : el("button", {
        type: "button", class: "drop", "aria-label": `Remove column ${label(column)}`, title: "Remove",
        on: { click: () => { view.columns = view.columns.filter((other) => other !== column); head(); body(); } },
      }, "×");
      const all = column !== "name" ? null : el("input", {
        type: "checkbox", checked: true, "aria-label": "Draw all runs shown", title: "Draw all", id: "all",
        on: { change: (event) => { for (const run of visible) draw(run, event.target.checked); body(); redraw(); } },
      });
      return el("th", { scope: "col", "data-column": column, class: numeric ? "number" : "" }, all, sorting, dropping);
    };
    $("runs").tHead.replaceChildren(el("tr", {}, ...view.columns.map(cell)));
    const known = new Set(view.columns);
    const more = [...Object.keys(FACTS), ...bestFigures().map((f) => `best:${f}`), ...finalFigures().map((f) => `final:${f}`),
      ...settingKeys().map((key) => `set:${key}`)].filter((column) => !known.has(column));
    choose($("column-add"), [["", "add…"], ...more.map((column) => [column, label(column)])], "");
  }

  function sortBy(column) {
    const same = view.sort.column === column;
    view.sort = { column, descending: same ? !view.sort.descending : sideOf(column) === "higher" };
    refresh();
  }

  const draw = (run, wanted) => (wanted ? view.hidden.delete(run.path) : view.hidden.add(run.path));

  function body() {
    const bests = new Map(view.columns.filter(sideOf).map((column) => {
      const values = visible.map((run) => valueOf(run, column)).filter((value) => typeof value === "number");
      return [column, sideOf(column) === "higher" ? Math.max(...values) : Math.min(...values)];
    }));
    const numeric = new Set(view.columns.filter((c) => data.runs.some((run) => typeof valueOf(run, c) === "number")));
    const rows = visible.map((run) => {
      const cells = view.columns.map((column) => {
        const value = valueOf(run, column);
        if (column === "name") {
          const box = el("input", {
            type: "checkbox", checked: !view.hidden.has(run.path), "aria-label": `Draw ${run.name}`,
            on: { change: (event) => { draw(run, event.target.checked); tally(); redraw(); } },
          });
          const open = el("button", { type: "button", class: "name", title: `${run.name}: ${run.group}`, on: { click: () => details(run) } }, short(run));
          return el("th", { scope: "row" }, box, swatch(run), open);
        }
        if (column === "state") {
          const why = ["failed", "stopped", "pruned"].includes(run.state) || run.problems.length
            ? el("span", { class: "why", title: run.reason }, [run.reason, ...run.problems].join("; ")) : null;
          return el("td", {}, el("span", { class: `state ${run.state}` }, run.state), why);
        }
        const best = bests.has(column) && value === bests.get(column) && visible.length > 1;
        const when = column.startsWith("best:") && run.best[column.slice(5)];
        const title = when ? `${value} at ${format(when[1])} kimg` : value === null || value === undefined ? null : String(value);
        return el("td", { class: `${numeric.has(column) ? "number" : ""}${best ? " best" : ""}`, title }, format(value));
      });
      return el("tr", { "data-path": run.path }, ...cells);
    });
    $("runs").tBodies[0].replaceChildren(...rows);
    for (const cell of $("runs").tHead.rows[0].cells) {
      const mine = cell.dataset.column === view.sort.column;
      cell.setAttribute("aria-sort", mine ? (view.sort.descending ? "descending" : "ascending") : "none");
    }
    tally();
    protocols();
  }

  function tally() {
    const all = $("all"), shown = drawn().length;
    all.checked = shown === visible.length;
    all.indeterminate = shown > 0 && shown < visible.length;
  }

  function protocols() {
    const finals = unique(visible.filter((run) => run.final).map((run) => run.protocol).filter(Boolean));
    const curves = unique(visible.map((run) => run.curve_protocols.val).filter(Boolean));
    const parts = [];
    if (finals.length > 1) parts.push(`The final figures here are of ${finals.length} protocols (${finals.join(", ")})`);
    if (curves.length > 1) parts.push(`the curves val/… and their best are of ${curves.length} (${curves.join(", ")})`);
    $("protocols").hidden = parts.length === 0;
    $("protocols").textContent = parts.length
      ? `${parts.join("; ")}: only figures of one protocol compare. A run's details show its stamp; protocol=… filters.` : "";
  }

  // ---------------------------------------------------------------- curves

  const tone = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function layout(more) {
    const axis = { gridcolor: tone("--line"), zerolinecolor: tone("--line"), linecolor: tone("--line"), automargin: true };
    const hover = { bgcolor: tone("--raised"), bordercolor: tone("--line"), font: { color: tone("--ink") }, namelength: -1 };
    const base = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: tone("--ink"), size: 12 },
      margin: { l: 50, r: 12, t: 12, b: 40 }, hovermode: "closest", showlegend: false, hoverlabel: hover,
    };
    return { ...base, ...more, xaxis: { ...axis, ...more.xaxis }, yaxis: { ...axis, ...more.yaxis } };
  }

  const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"], showTips: false };

  function curveTraces(figure) {
    const traces = [];
    for (const run of drawn()) {
      const curve = run.curves[figure];
      if (!curve) continue;
      const protocol = run.curve_protocols[figure.split("/")[0]];
      traces.push({
        type: "scatter", mode: curve[0].length < 80 ? "lines+markers" : "lines", x: curve[0], y: curve[1],
        name: escaped(short(run)), line: { color: colours.get(run.path), width: 1.6 }, marker: { size: 4 },
        meta: run.path, connectgaps: false,
        hovertemplate: `%{y:.5~g} at %{x:.6~g} kimg<br>${escaped(run.group)}${protocol ? `<br>protocol ${escaped(protocol)}` : ""}<extra>%{fullData.name}</extra>`,
      });
    }
    for (const run of drawn()) {
      const curve = run.curves[figure];
      if (!curve || !run.health.length) continue;
      traces.push({
        type: "scatter", mode: "markers", x: run.health.map((event) => event.kimg),
        y: run.health.map((event) => between(curve, event.kimg)), name: escaped(short(run)), meta: run.path,
        marker: {
          size: 12, symbol: run.health.map((event) => (event.action === "warn" ? "triangle-up" : "x")),
          color: run.health.map((event) => tone(event.action === "warn" ? "--warn" : "--bad")),
          line: { width: 1, color: tone("--paper") },
        },
        text: run.health.map((event) => escaped(`${event.check} (${event.action}): ${event.message}`)),
        hovertemplate: "%{text}<br>at %{x:.6~g} kimg<extra>%{fullData.name}</extra>",
      });
    }
    return traces;
  }

  function between([xs, ys], at) { // the value of a curve at a time, on the line between its points
    const next = xs.findIndex((x) => x >= at);
    if (next === -1) return ys[ys.length - 1];
    if (next === 0 || xs[next] === at || ys[next - 1] === null) return ys[next];
    return ys[next - 1] + ((ys[next] - ys[next - 1]) * (at - xs[next - 1])) / (xs[next] - xs[next - 1]);
  }

  // Charts are drawn when they come into sight, and again when they do so after a change.
  const waiting = new Map();
  const sight = new IntersectionObserver((seen) => {
    for (const { target, isIntersecting } of seen) {
      target.inSight = isIntersecting;
      if (isIntersecting && waiting.has(target)) { const call = waiting.get(target); waiting.delete(target); call(); }
    }
  }, { rootMargin: "300px" });

  function later(node, call) {
    if (node.inSight) call();
    else { waiting.set(node, call); sight.observe(node); }
  }

  function panels() {
    const existing = $("panels").children;
    if (existing.length !== view.panels.length) {
      $("panels").replaceChildren(...view.panels.map((panel) => {
        const figure = el("select", { "aria-label": "Figure", on: { change: (e) => { panel.figure = e.target.value; panels(); } } });
        const log = el("input", { type: "checkbox", on: { change: (e) => { panel.log = e.target.checked; panels(); } } });
        const chart = el("div", { class: "chart", tabindex: "0", role: "group" });
        const said = el("p", { class: "said", role: "status" });
        chart.addEventListener("keydown", (event) => steer(event, chart, said));
        return el("div", { class: "panel" }, el("div", { class: "bar" }, figure, el("label", {}, log, "log")), chart, said);
      }));
    }
    view.panels.forEach((panel, i) => {
      const box = existing[i], chart = box.querySelector(".chart");
      choose(box.querySelector("select"), data.figures.map((figure) => [figure, figure]), panel.figure);
      chart.setAttribute("aria-label", `${panel.figure} over thousands of images, a line a run`);
      later(chart, () => plotCurves(chart, panel));
    });
  }

  function plotCurves(chart, panel) {
    const traces = curveTraces(panel.figure);
    const shape = layout({
      uirevision: `${panel.figure} ${panel.log}`,
      xaxis: { title: { text: "kimg" } }, yaxis: { type: panel.log ? "log" : "linear" },
      annotations: traces.length ? [] : [{ text: "none of the runs drawn has this figure", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5 }],
    });
    Plotly.react(chart, traces, shape, CONFIG);
    if (!chart.heard) {
      chart.heard = true;
      chart.on("plotly_hover", (event) => light(event.points[0].data.meta));
      chart.on("plotly_unhover", () => light(null));
      chart.on("plotly_click", (event) => {
        const run = data.runs.find((other) => other.path === event.points[0].data.meta);
        if (run) details(run);
      });
    }
  }

  function light(path) {
    for (const row of $("runs").tBodies[0].rows) row.classList.toggle("lit", row.dataset.path === path);
  }

  function steer(event, chart, said) {
    if (!chart.layout || event.ctrlKey || event.metaKey || event.altKey || event.target !== chart) return;
    const { key } = event;
    const lines = chart.data.filter((trace) => trace.mode !== "markers");
    if (["+", "=", "-", "ArrowLeft", "ArrowRight"].includes(key)) {
      const [low, high] = chart.layout.xaxis.range, width = high - low;
      const [a, b] = { "+": [0.25, -0.25], "=": [0.25, -0.25], "-": [-0.5, 0.5], ArrowLeft: [-0.2, -0.2], ArrowRight: [0.2, 0.2] }[key];
      Plotly.relayout(chart, { "xaxis.range": [low + a * width, high + b * width] });
    } else if (key === "0") {
      Plotly.relayout(chart, { "xaxis.autorange": true, "yaxis.autorange": true });
    } else if ([",", ".", "ArrowUp", "ArrowDown"].includes(key) && lines.length) {
      const cursor = chart.cursor || { line: 0, point: -1 };
      if (key === "ArrowUp" || key === "ArrowDown") cursor.line += key === "ArrowDown" ? 1 : -1;
      else cursor.point += key === "." ? 1 : -1;
      cursor.line = (cursor.line + lines.length) % lines.length;
      const line = lines[cursor.line];
      cursor.point = Math.min(Math.max(cursor.point, 0), line.x.length - 1);
      chart.cursor = cursor;
      const run = data.runs.find((other) => other.path === line.meta);
      said.textContent = `${run ? short(run) : ""}: ${format(line.y[cursor.point])} at ${format(line.x[cursor.point])} kimg`;
      Plotly.Fx.hover(chart, [{ curveNumber: chart.data.indexOf(line), pointNumber: cursor.point }]);
    } else return;
    event.preventDefault();
  }

  // ---------------------------------------------------------------- samples

  let times = [];

  function samples() {
    const kinds = unique(data.runs.flatMap((run) => Object.keys(run.grids)));
    if (!kinds.includes(view.kind)) view.kind = kinds[0] || "samples";
    choose($("kind"), kinds.map((kind) => [kind, kind]), view.kind);
    const having = visible.filter((run) => (run.grids[view.kind] || []).length);
    const cards = having.slice(0, view.grids).map((run) => {
      const picture = el("img", { alt: "", decoding: "async" });
      const when = el("span");
      const card = el("figure", {}, picture, el("figcaption", {}, swatch(run),
        el("button", { type: "button", class: "name", on: { click: () => details(run) } }, short(run)), " ", when));
      return Object.assign(card, { run, picture, when });
    });
    const none = el("p", { class: "hint" }, "No sample grids here.");
    $("grids").replaceChildren(...(cards.length ? cards : [none]));
    $("more-grids").hidden = having.length <= view.grids;
    times = unique(having.flatMap((run) => run.grids[view.kind].map(([kimg]) => kimg))).sort((a, b) => a - b);
    $("time").max = Math.max(times.length - 1, 0);
    $("time").value = Math.max(times.filter((kimg) => kimg <= view.kimg).length - 1, 0);
    atTime();
  }

  function atTime() {
    const kimg = times[Number($("time").value)];
    const said = kimg === undefined ? "" : `${format(kimg)} kimg`;
    $("time-said").textContent = said;
    $("time").setAttribute("aria-valuetext", said);
    for (const card of $("grids").children) {
      if (!card.run) continue;
      const before = card.run.grids[view.kind].filter(([time]) => time <= kimg);
      const [time, source] = before.length ? before[before.length - 1] : card.run.grids[view.kind][0];
      if (card.picture.getAttribute("src") !== source) card.picture.src = source;
      card.picture.alt = `${view.kind} of ${card.run.name} at ${format(time)} kimg`;
      card.when.textContent = `${format(time)} kimg`;
    }
  }

  function moveTime(step) {
    $("time").value = (step + times.length) % Math.max(times.length, 1);
    view.kimg = Number($("time").value) === times.length - 1 ? Infinity : times[Number($("time").value)];
    atTime();
  }

  // ---------------------------------------------------------------- differences

  const MOST_COMPARED = 12;

  function differences() {
    choose($("reference"), visible.map((run) => [run.path, short(run)]), view.reference);
    const reference = visible.find((run) => run.path === $("reference").value);
    const others = visible.filter((run) => run !== reference).slice(0, MOST_COMPARED - 1);
    const runs = reference ? [reference, ...others] : [];
    const keys = data.differing.filter((key) => unique(runs.map((run) => format(setting(run, key)))).length > 1);
    const header = el("tr", {}, el("th", { scope: "col" }, "setting"), ...runs.map((run) => el("th", { scope: "col" }, swatch(run), short(run))));
    $("settings").tHead.replaceChildren(header);
    $("settings").tBodies[0].replaceChildren(...keys.map((key) => el("tr", {}, el("th", { scope: "row" }, key), ...runs.map((run) => {
      const text = format(setting(run, key)), differs = text !== format(setting(reference, key));
      return el("td", { class: differs ? "differs" : "", title: text }, text || "—");
    }))));
    const left = visible.length - runs.length;
    $("settings-said").textContent = (keys.length ? "Marked and bold: other than in the first column." : "These runs do not differ in any setting.")
      + (left > 0 ? ` ${left} more runs: filter the leaderboard to see them.` : "");
  }

  // ---------------------------------------------------------------- sweep

  const MOST_AXES = 8;
  const plainRuns = "runs";

  // Points with their parameters and a value, from the runs shown or a search's trials.
  function points() {
    const search = data.searches[Number(view.source)];
    if (view.source === plainRuns || !search) {
      const keys = swept().filter((key) => key !== "seed" && key !== "total_kimg").slice(0, MOST_AXES);
      return { search: null, keys, list: visible.map((run) => ({
        name: short(run), path: run.path, state: run.state, value: view.objective ? valueOf(run, view.objective) : null,
        params: Object.fromEntries(keys.map((key) => [key, setting(run, key)])),
      })) };
    }
    const ranked = Object.keys(search.importance);
    const keys = unique([...ranked, ...search.trials.flatMap((trial) => Object.keys(trial.params))]).slice(0, MOST_AXES);
    const which = Number((view.objective || "metric:0").slice(7));
    return { search, keys, list: search.trials.map((trial) => ({
      name: `trial ${trial.number}`, number: trial.number, state: trial.state, error: trial.error, params: trial.params,
      value: trial.values ? trial.values[which] : null, values: trial.values,
      path: (data.runs.find((run) => trial.folders.length && run.path.endsWith(`${search.folder}/${trial.folders[0]}`)) || {}).path,
    })) };
  }

  function sweep() {
    const sources = data.searches.map((search, i) => [String(i), `search ${search.name} (${search.folder})`]);
    sources.push([plainRuns, "the runs of the leaderboard"]);
    if (!sources.some(([value]) => value === view.source)) view.source = sources[0][0];
    choose($("source"), sources, view.source);
    const search = data.searches[Number(view.source)];
    const objectives = search && view.source !== plainRuns
      ? search.metrics.map((metric, i) => [`metric:${i}`, `${metric} (${search.directions[i]})`])
      : [...bestFigures().map((f) => `best:${f}`), ...finalFigures().map((f) => `final:${f}`)].filter(sideOf).map((c) => [c, label(c)]);
    if (!objectives.some(([value]) => value === view.objective)) {
      const usual = objectives.find(([value]) => value === view.sort.column || value === `best:val/${data.monitor}`);
      view.objective = (usual || objectives[0] || [null])[0];
    }
    choose($("objective"), objectives, view.objective);
    const found = points();
    const scored = found.list.filter((point) => typeof point.value === "number");
    const states = unique(found.list.map((point) => point.state)).map((state) => `${found.list.filter((p) => p.state === state).length} ${state}`);
    $("sweep-said").textContent = found.keys.length && scored.length
      ? `${found.list.length} ${found.search ? `trials by ${found.search.sampler || "search"}` : "runs"}: ${states.join(", ")}.`
      : "Nothing to draw: no setting differs, or no figure is there yet.";
    const empty = !found.keys.length || !scored.length;
    $("parallel").hidden = empty;
    if (empty) { $("search").replaceChildren(); return; }
    const best = scored.reduce((a, b) => ((higher(found.search) ? b.value > a.value : b.value < a.value) ? b : a));
    $("parallel").setAttribute("aria-label", `Parallel coordinates; best: ${best.name} with ${format(best.value)}: `
      + found.keys.map((key) => `${key} ${format(best.params[key])}`).join(", "));
    later($("parallel"), () => parallel(found, scored));
    slices(found, scored);
  }

  const higher = (search) => (search ? search.directions[Number(view.objective.slice(7))] === "maximize" : sideOf(view.objective) === "higher");
  const objectiveLabel = () => $("objective").selectedOptions[0].text;

  function axisOf(values) { // where a value stands between 0 and 1, and the marks beside the axis
    const there = values.filter((value) => value !== null && value !== undefined && value !== "");
    if (there.length && there.every((value) => typeof value === "number")) {
      const low = Math.min(...there), high = Math.max(...there);
      const log = low > 0 && high / low > 50;
      const scale = log ? Math.log : (value) => value;
      const place = (value) => (high > low ? (scale(value) - scale(low)) / (scale(high) - scale(low)) : 0.5);
      const middle = log ? Math.sqrt(low * high) : (low + high) / 2;
      const few = unique(there).length <= 6;
      return { log, place, marks: (few ? unique(there) : [low, middle, high]).map((value) => [place(value), format(value)]) };
    }
    const names = unique(there.map(format)).sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    const place = (value) => (names.length > 1 ? names.indexOf(format(value)) / (names.length - 1) : 0.5);
    return { log: false, place, marks: names.map((name) => [place(name), name]) };
  }

  const SCALE = [[0, [253, 202, 38]], [0.33, [219, 92, 104]], [0.66, [140, 39, 143]], [1, [64, 100, 235]]];
  function hue(share) {
    const next = Math.max(SCALE.findIndex(([at]) => at >= share), 1), [a, from] = SCALE[next - 1], [b, to] = SCALE[next];
    return `rgb(${from.map((x, i) => Math.round(x + ((to[i] - x) * (share - a)) / (b - a)))})`;
  }

  // From 0, the worst, to 1: which also is the colour.
  function goodness(scored, search) {
    const { place } = axisOf(scored.map((point) => point.value));
    return (point) => (higher(search) ? place(point.value) : 1 - place(point.value));
  }

  function told(point, keys) {
    const lines = [`${point.name}: ${point.value === null || point.value === undefined ? point.state : format(point.value)}`];
    if (point.error) lines.push(point.error);
    return [...lines, ...keys.map((key) => `${key} = ${format(point.params[key])}`)].map(escaped).join("<br>");
  }

  function parallel({ keys, list, search }, scored) {
    const axes = [...keys.map((key) => [key, axisOf(list.map((point) => point.params[key]))]), [objectiveLabel(), axisOf(scored.map((p) => p.value))]];
    const value = axes[axes.length - 1][1], good = goodness(scored, search);
    const worstFirst = [...list].sort((a, b) => (typeof a.value === "number" ? good(a) : -1) - (typeof b.value === "number" ? good(b) : -1));
    const traces = worstFirst.map((point) => {
      const known = typeof point.value === "number";
      const ys = keys.map((key, i) => (point.params[key] === undefined || point.params[key] === null ? null : axes[i][1].place(point.params[key])));
      return {
        type: "scatter", mode: "lines+markers", x: axes.map((_, i) => i), y: [...ys, known ? value.place(point.value) : null],
        line: { color: known ? hue(good(point)) : tone("--line"), width: known ? 2 : 1, dash: known ? "solid" : "dot" },
        marker: { size: 5 }, text: axes.map(() => told(point, keys)), hovertemplate: "%{text}<extra></extra>", meta: point.path,
        connectgaps: true, opacity: known ? 0.85 : 0.7,
      };
    });
    const text = axes.flatMap(([name, axis], i) => [
      { x: i, y: i % 2 ? 1.14 : 1.07, text: escaped(name.length > 28 ? `…${name.slice(-27)}` : name) + (axis.log ? " (log)" : ""), showarrow: false, xanchor: i === 0 ? "left" : i === axes.length - 1 ? "right" : "center" },
      ...axis.marks.map(([y, mark]) => ({ x: i, y, text: escaped(mark.length > 18 ? `${mark.slice(0, 17)}…` : mark), showarrow: false, xanchor: i === axes.length - 1 ? "right" : "left", xshift: i === axes.length - 1 ? -6 : 6, font: { size: 11, color: tone("--ink") }, bgcolor: tone("--paper") })),
    ]);
    $("parallel").style.minWidth = `${axes.length * 6.5}rem`;
    Plotly.react($("parallel"), traces, layout({
      uirevision: view.source, margin: { l: 20, r: 20, t: 30, b: 15 }, dragmode: false,
      xaxis: { visible: false, range: [-0.1, axes.length - 0.9] }, yaxis: { visible: false, range: [-0.06, 1.18] }, annotations: text,
      shapes: axes.map((_, x) => ({ type: "line", x0: x, x1: x, y0: 0, y1: 1, layer: "below", line: { color: tone("--faint"), width: 1.5 } })),
    }), { ...CONFIG, displayModeBar: false });
    opening($("parallel"));
  }

  function opening(chart) {
    if (chart.opens) return;
    chart.opens = true;
    chart.on("plotly_click", (event) => {
      const at = event.points[0], path = at.customdata || at.data.meta;
      const run = data.runs.find((other) => other.path === path);
      if (run) details(run);
    });
  }

  function slices(found, scored) {
    const wanted = [];
    const good = goodness(scored, found.search);
    const mark = (list) => ({ color: list.map((point) => hue(good(point))), size: 8, line: { width: 0.5, color: tone("--ink") } });
    const dots = (list, x, y) => ({
      type: "scatter", mode: "markers", x, y, text: list.map((point) => told(point, found.keys)), customdata: list.map((point) => point.path),
      hovertemplate: "%{text}<extra></extra>", marker: mark(list),
    });
    if (found.search) {
      const inOrder = [...scored].sort((a, b) => a.number - b.number);
      let record = null;
      const records = inOrder.map(({ value }) => (record = record === null ? value : higher(found.search) ? Math.max(record, value) : Math.min(record, value)));
      wanted.push(["History", [
        { type: "scatter", mode: "lines", x: inOrder.map((p) => p.number), y: records, line: { shape: "hv", color: tone("--accent") }, hovertemplate: "best so far %{y:.5~g}<extra></extra>" },
        dots(inOrder, inOrder.map((p) => p.number), inOrder.map((p) => p.value)),
      ], { xaxis: { title: { text: "trial" } } }]);
      if (found.search.metrics.length > 1) {
        const [a, b] = found.search.metrics;
        wanted.push([`${a} and ${b}`, [dots(scored, scored.map((p) => p.values[0]), scored.map((p) => p.values[1]))],
          { xaxis: { title: { text: escaped(a) } }, yaxis: { title: { text: escaped(b) } } }]);
      }
      const shares = Object.entries(found.search.importance).reverse();
      if (shares.length) {
        wanted.push(["Importance (fANOVA)", [{ type: "bar", orientation: "h", x: shares.map(([, share]) => share), y: shares.map(([key]) => escaped(key)), marker: { color: tone("--accent") }, hovertemplate: "%{y}: %{x:.3f}<extra></extra>" }],
          { xaxis: { title: { text: "share of the variance" }, rangemode: "tozero" }, yaxis: { type: "category" } }]);
      }
    }
    for (const key of found.keys) {
      const list = scored.filter((point) => point.params[key] !== undefined && point.params[key] !== null);
      const values = list.map((point) => point.params[key]), axis = axisOf(values);
      if (unique(values).length < 2) continue;
      const numbers = values.every((value) => typeof value === "number");
      wanted.push([key, [dots(list, numbers ? values : values.map((value) => escaped(format(value))), list.map((p) => p.value))],
        { xaxis: { title: { text: escaped(key) }, type: numbers ? (axis.log ? "log" : "linear") : "category" } }]);
    }
    const boxes = $("search").children;
    if (boxes.length !== wanted.length) {
      $("search").replaceChildren(...wanted.map(() => el("div", { class: "panel" }, el("h3"), el("div", { class: "chart", role: "img", tabindex: "0" }))));
    }
    wanted.forEach(([name, traces, more], i) => {
      const chart = boxes[i].querySelector(".chart");
      boxes[i].querySelector("h3").textContent = name;
      chart.setAttribute("aria-label", `${name}: ${objectiveLabel()}`);
      const y = name.startsWith("Importance") ? {} : { title: { text: escaped(objectiveLabel()) } };
      later(chart, () => { Plotly.react(chart, traces, layout({ uirevision: `${view.source}${name}`, ...more, yaxis: { ...y, ...more.yaxis } }), CONFIG); opening(chart); });
    });
  }

  // ---------------------------------------------------------------- one run

  function table(pairs) {
    return el("table", {}, el("tbody", {}, ...pairs.filter(([, value]) => format(value) !== "").map(([key, value]) => el("tr", {}, el("th", { scope: "row" }, key), el("td", {}, format(value))))));
  }

  const folded = (title, content) => el("details", {}, el("summary", {}, title), content);

  function details(run) {
    const start = run.starts[run.starts.length - 1] || {};
    const bad = ["failed", "stopped"].includes(run.state);
    const parts = [
      el("p", { class: bad ? "notice error" : "" }, el("span", { class: `state ${run.state}` }, run.state), run.reason ? `: ${run.reason}` : ""),
      ...run.problems.map((problem) => el("p", { class: "notice" }, problem)),
      el("h3", {}, "Files"),
      el("p", {}, ...run.links.flatMap(([name, address]) => [el("a", { href: address, target: "_blank", rel: "noopener" }, name), " "])),
      table([
        ["group", run.group], ["folder", run.path], ["kimg", `${format(run.kimg)}${run.total ? ` of ${format(run.total)}` : ""}`],
        ["images/s, median", run.speed], ["started", `${run.started || ""}${run.starts.length > 1 ? ` (start ${run.starts.length})` : ""}`],
        ["asked", run.asked.join(" ")], ["code", start.git_commit], ["protocol", run.protocol],
      ]),
    ];
    if (Object.keys(run.scores).length) {
      parts.push(el("h3", {}, run.final ? "Final figures" : "Figures so far"), table(Object.entries(run.scores)));
    }
    if (run.health.length) {
      parts.push(el("h3", {}, "Health"), table(run.health.map((event) => [`${format(event.kimg)} kimg, ${event.action}`, `${event.check}: ${event.message} ${event.advice}`])));
    }
    if (start.command) parts.push(folded("Command", el("pre", {}, start.command.join(" "))));
    if (Object.keys(run.stamp).length) parts.push(folded(`Protocol stamp ${run.protocol || ""}`, table(Object.entries(run.stamp))));
    if (start.versions) parts.push(folded("Versions", table([["Python", start.python], ...Object.entries(start.versions)])));
    parts.push(folded("All settings", table(settingKeys().filter((key) => setting(run, key) !== undefined).map((key) => [key, setting(run, key)]))));
    $("details-name").replaceChildren(swatch(run), run.name);
    $("details-body").replaceChildren(...parts);
    if (!$("details").open) $("details").showModal();
  }

  // ---------------------------------------------------------------- all of it

  function summary() {
    const count = (state) => data.runs.filter((run) => run.state === state).length;
    const states = ["running", "ended", "stopped", "pruned", "failed"].filter(count).map((state) => `${count(state)} ${state}`);
    $("summary").textContent = `${data.runs.length} runs: ${states.join(", ")}`;
    $("made").textContent = `Made ${data.made} by ganforge ${data.version}. `
      + "Curves are thinned to their lowest and highest values, and grids are re-encoded: the runs' folders hold all.";
    const keys = ["state", ...data.differing, ...settingKeys().filter((key) => !data.differing.includes(key))];
    choose($("filter-key"), keys.map((key) => [key, key]), $("filter-key").value);
    offer();
  }

  function offer() {
    const column = columnNamed($("filter-key").value);
    const values = column ? unique(data.runs.map((run) => format(valueOf(run, column)))).sort((a, b) => a.localeCompare(b, undefined, { numeric: true })) : [];
    choose($("filter-value"), values.map((value) => [value, value || "(none)"]), $("filter-value").value);
  }

  function redraw() {
    panels();
    sweep();
  }

  function refresh() {
    look();
    body();
    samples();
    differences();
    redraw();
  }

  function show() {
    shorten();
    dye();
    summary();
    head();
    refresh();
  }

  function paint(theme) {
    document.documentElement.dataset.theme = theme;
    $("theme").textContent = theme === "dark" ? "☀" : "☾";
  }

  const system = matchMedia("(prefers-color-scheme: dark)");
  const kept = (() => { try { return localStorage.getItem("ganforge-theme"); } catch { return null; } })();
  paint(kept || (system.matches ? "dark" : "light"));
  system.addEventListener("change", () => { if (!view.theme && !kept) { paint(system.matches ? "dark" : "light"); redraw(); } });
  $("theme").addEventListener("click", () => {
    view.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("ganforge-theme", view.theme); } catch { /* a file's page may not be let to */ }
    paint(view.theme);
    redraw();
  });

  const typed = debounced(refresh, 120);
  $("filter").addEventListener("input", typed);
  $("filtering").addEventListener("submit", (event) => { event.preventDefault(); refresh(); });
  $("filter-key").addEventListener("change", offer);
  $("filter-add").addEventListener("click", () => {
    const value = $("filter-value").value;
    const word = `${$("filter-key").value}=${/\s/.test(value) ? `"${value}"` : value}`;
    $("filter").value = `${$("filter").value} ${word}`.trim();
    refresh();
  });
  $("filter-clear").addEventListener("click", () => { $("filter").value = ""; refresh(); });
  $("column-add").addEventListener("change", (event) => {
    if (event.target.value) { view.columns.push(event.target.value); head(); body(); }
  });
  $("colour").addEventListener("change", () => { dye(); refresh(); });
  $("time").addEventListener("input", () => moveTime(Number($("time").value)));
  $("kind").addEventListener("change", (event) => { view.kind = event.target.value; samples(); });
  $("more-grids").addEventListener("click", () => { view.grids += 12; samples(); });
  let playing = 0;
  $("play").addEventListener("click", () => {
    clearInterval(playing);
    playing = playing ? 0 : setInterval(() => moveTime(Number($("time").value) + 1), 350);
    $("play").setAttribute("aria-pressed", String(Boolean(playing)));
    $("play").textContent = playing ? "Pause" : "Play";
  });
  $("reference").addEventListener("change", (event) => { view.reference = event.target.value; differences(); });
  $("source").addEventListener("change", (event) => { view.source = event.target.value; view.objective = null; sweep(); });
  $("objective").addEventListener("change", (event) => { view.objective = event.target.value; sweep(); });
  $("details").addEventListener("click", (event) => { if (event.target === $("details")) $("details").close(); });

  defaults();
  if (data.runs.length > unique(data.runs.map((run) => run.group)).length) $("colour").value = "group";
  show();
  document.documentElement.dataset.ready = "true";

  // ---------------------------------------------------------------- live

  async function follow() {
    try {
      if (document.hidden) return;
      const answer = await fetch(`data.json?have=${encodeURIComponent(data.tag)}`, { cache: "no-store" });
      if (answer.status === 200) {
        const focused = document.activeElement && document.activeElement.closest("th,td") ? null : document.activeElement;
        const { title } = data;
        data = { ...(await answer.json()), title, live: true };
        if (!data.figures.some((figure) => view.panels.some((panel) => panel.figure === figure))) defaults();
        show();
        if (focused) focused.focus();
      }
      $("live").textContent = `Live: as of ${data.made.slice(11, 19)}`;
    } catch {
      $("live").textContent = `The server has stopped; this is what it showed at ${data.made.slice(11, 19)}`;
    } finally {
      setTimeout(follow, 2000);
    }
  }

  if (data.live) {
    $("live").hidden = false;
    follow();
  }
})();
