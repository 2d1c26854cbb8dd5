"use strict";
/* The page: state in the URL's hash, filters, cards, the large view. Data come by calls of rislabBrowse from scripts beside it. */
const rislabBrowse = (() => {
  const PER_PAGE = 20;
  const $ = (id) => document.getElementById(id);
  let data = null;      // of data/index.js
  let state = null;     // what the hash says
  let facets = [];      // filters: {key, title, names, codes: Uint8Array | function}
  let shown = [];       // indices of units after filters, in order
  let current = null;   // answers of A and B
  let wordsOf = [];     // lower-case texts
  const answers = new Map();  // (row, seed) -> answers by unit
  const waiting = new Map();  // file of masks -> promise and resolver

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
  const percent = (hundredths) => (hundredths < 0 ? "not scored" : (hundredths / 100).toFixed(1));
  const grouped = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, ",");

  /* ---- data ---- */

  function index(given) {
    data = given;
    const units = data.units;
    data.count = units.number.length;
    wordsOf = units.text.map((text) => text.toLowerCase());
    document.title = data.title;
    $("title").textContent = data.title;
    $("subtitle").textContent = `${data.subtitle}. ${data.meaning}`;
    facets = staticFacets();
    fillControls();
    readHash();
    update(false);
    requestAnimationFrame(() => setTimeout(() => { document.body.dataset.ready = performance.now().toFixed(0); }));
    $("notes").hidden = !data.notes.length;
    $("notes").querySelector("summary").textContent = data.notes.length === 1 ? "1 note" : `${data.notes.length} notes`;
    if (data.report) Object.assign($("report"), { href: data.report, hidden: false });
    $("notes").querySelector("ul").replaceChildren(...data.notes.map((note) => make("li", { textContent: note })));
  }

  /** Called by the files of masks. */
  function masks(name, number, list) {
    wait(`${name}-${number}`).resolve(list);
  }

  function wait(key) {
    if (!waiting.has(key)) {
      const entry = { list: null, started: false };
      entry.promise = new Promise((resolve) => {
        entry.resolve = (list) => { entry.list = list; resolve(list); };
      });
      waiting.set(key, entry);
    }
    return waiting.get(key);
  }

  /** The mask of a unit, as counts; null where the trial has none. */
  async function counts(name, unit) {
    const number = Math.floor(unit / data.chunk), entry = wait(`${name}-${number}`);
    if (!entry.started) {
      entry.started = true;
      const script = make("script", { src: `data/${name}-${number}.js` });
      script.onerror = () => entry.resolve([]);
      document.head.append(script);
    }
    const list = await entry.promise;
    return list[unit - number * data.chunk] ?? null;
  }

  const entryName = (at) => `answers-${at}`;

  function categories(values, borders) {
    return Uint8Array.from(values, (value) => borders.findIndex((border) => value < border));
  }

  function staticFacets() {
    const units = data.units, found = [];
    if (data.kind === "expressions") {
      const none = units.noTarget;
      const sizes = categories(units.share, [100, 500, 2000, Infinity]).map((code, n) => (none[n] ? 4 : code));
      const others = units.distractors.map((value) => (value === null ? 4 : value < 0 ? 5 : Math.min(value, 3)));
      found.push(
        { key: "length", title: "sentence length", names: ["1-2 words", "3-4", "5-7", "8 or more"], codes: categories(units.words, [3, 5, 8, Infinity]) },
        { key: "size", title: "object size, of the picture", names: ["below 1 %", "1 to 5 %", "5 to 20 %", "above 20 %", "nothing is meant"], codes: sizes },
        { key: "distractors", title: "distractors of the same class", names: ["none", "1", "2", "3 or more", "not known", "nothing is meant"], codes: Uint8Array.from(others) },
        { key: "position", title: "position words", names: ["without", "with"], codes: Uint8Array.from(units.position) },
      );
    } else {
      const names = [...new Set(units.text)].sort();
      const at = new Map(names.map((name, n) => [name, n]));
      found.push(
        { key: "class", title: "class", names, codes: Uint16Array.from(units.text, (name) => at.get(name)) },
        { key: "size", title: "size of the class, of the picture", names: ["below 1 %", "1 to 5 %", "5 to 20 %", "above 20 %", "not in the picture"],
          codes: categories(units.share, [100, 500, 2000, Infinity]).map((code, n) => (units.noTarget[n] ? 4 : code)) },
      );
    }
    found.push(
      { key: "error-a", title: "error of A", names: data.classes, codes: () => current.a.errors },
      { key: "error-b", title: "error of B", names: data.classes, codes: () => current.b.errors },
    );
    return found;
  }

  const codesOf = (facet) => (typeof facet.codes === "function" ? facet.codes() : facet.codes);

  /** Scores, errors and the entry whose masks are shown, of each unit; of all seeds, the mean and the first seed's masks. */
  function answersOf(row, seed) {
    const key = `${row} ${seed}`;
    if (answers.has(key)) return answers.get(key);
    const found = { scores: new Float64Array(data.count).fill(-1), errors: new Uint8Array(data.count).fill(data.classes.length),
      entry: new Int32Array(data.count).fill(-1), seeds: [] };
    const numbers = new Uint16Array(data.count);
    data.entries.forEach((entry, at) => {
      if (entry.row !== row || !(seed === "all" || entry.anySeed || String(entry.seed) === seed)) return;
      if (!found.seeds.includes(entry.seed)) found.seeds.push(entry.seed);
      for (let n = 0; n < data.count; n++) {
        if (entry.errors[n] >= data.classes.length) continue;
        if (found.entry[n] < 0) { found.entry[n] = at; found.errors[n] = entry.errors[n]; }
        if (entry.scores[n] < 0) continue;
        found.scores[n] = numbers[n] ? (found.scores[n] * numbers[n] + entry.scores[n]) / (numbers[n] + 1) : entry.scores[n];
        numbers[n]++;
      }
    });
    answers.set(key, found);
    return found;
  }

  /* ---- state ---- */

  function rowOf(name, otherwise) {
    const names = data.rows.map((row) => row.name);
    const at = names.indexOf(name ?? "");
    if (at >= 0) return at;
    const bare = names.indexOf((name ?? "").split(":").pop());
    return bare >= 0 ? bare : otherwise;
  }

  function readHash() {
    const given = new URLSearchParams(location.hash.slice(1));
    const seeds = seedsThere();
    const last = data.rows.length - 1;
    state = {
      a: rowOf(given.get("a"), last), b: rowOf(given.get("b"), 0),
      seed: given.get("seed") && (given.get("seed") === "all" || seeds.includes(given.get("seed"))) ? given.get("seed") : seeds.length > 1 ? "all" : seeds[0],
      sort: [...$("sort").options].some((option) => option.value === given.get("sort")) ? given.get("sort") : "gain",
      q: given.get("q") ?? "", page: Math.max(1, Number.parseInt(given.get("page") ?? "1", 10) || 1), open: given.get("open"), filters: {},
    };
    for (const facet of facets) {
      const chosen = (given.get(facet.key) ?? "").split("|").map((name) => facet.names.indexOf(name)).filter((at) => at >= 0);
      if (chosen.length) state.filters[facet.key] = new Set(chosen);
    }
    showState();
  }

  function writeHash() {
    const said = new URLSearchParams({ a: data.rows[state.a].name, b: data.rows[state.b].name });
    if (state.seed !== (seedsThere().length > 1 ? "all" : seedsThere()[0])) said.set("seed", state.seed);
    if (state.sort !== "gain") said.set("sort", state.sort);
    if (state.q) said.set("q", state.q);
    for (const facet of facets) {
      const chosen = state.filters[facet.key];
      if (chosen?.size) said.set(facet.key, [...chosen].map((at) => facet.names[at]).join("|"));
    }
    if (state.page > 1) said.set("page", state.page);
    if (state.open !== null) said.set("open", state.open);
    try {
      history.replaceState(null, "", `#${said}`);
    } catch {
      location.replace(`#${said}`);
    }
  }

  const seedsThere = () => [...new Set(data.entries.map((entry) => String(entry.seed)))].sort((x, y) => x - y);

  function fillControls() {
    for (const side of ["a", "b"]) {
      $(side).replaceChildren(...data.rows.map((row, n) => make("option", { value: n, textContent: row.label === row.name ? row.name : `${row.label} (${row.name})` })));
    }
    const seeds = seedsThere();
    const all = seeds.length > 1 ? [make("option", { value: "all", textContent: `all ${seeds.length} (mean)` })] : [];
    $("seed").replaceChildren(...all, ...seeds.map((seed) => make("option", { value: seed, textContent: seed })));
    $("facets").replaceChildren(...facets.map((facet) => {
      const known = typeof facet.codes === "function" ? null : new Set(facet.codes);
      const chips = facet.names.flatMap((name, at) => {
        if (known && !known.has(at)) return [];  // no unit of the table is of this kind
        const box = make("input", { type: "checkbox", name: facet.key, value: at });
        const label = make("label", { className: "chip" }, box, make("span", {}, `${name} `, make("b")));
        return label;
      });
      return make("fieldset", {}, make("legend", { textContent: facet.title }), make("div", { className: "chips" }, ...chips));
    }));
  }

  function showState() {
    for (const key of ["a", "b", "seed", "sort", "q"]) if ($(key).value !== String(state[key])) $(key).value = state[key];
    for (const box of $("facets").querySelectorAll("input")) box.checked = state.filters[box.name]?.has(Number(box.value)) ?? false;
    const number = Object.values(state.filters).filter((chosen) => chosen.size).length;
    $("filter-count").textContent = number ? `(${number} set)` : "";
    if (number) $("filters").open = true;
  }

  /* ---- filters ---- */

  /** Words, "phrases" and -words of the field; every one must hold. */
  function wordTests(text) {
    const found = [];
    for (const [, minus, phrase, word] of text.toLowerCase().matchAll(/(-?)(?:"([^"]*)"?|([^\s"]+))/g)) {
      const wanted = (phrase ?? word).trim();
      if (!wanted) continue;
      const escaped = wanted.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
      const whole = new RegExp(`(?<![\\p{L}\\p{N}])${escaped}${phrase === undefined ? "" : "(?![\\p{L}\\p{N}])"}`, "u");
      found.push((line) => whole.test(line) !== (minus === "-"));
    }
    return found;
  }

  function select() {
    current = { a: answersOf(state.a, state.seed), b: answersOf(state.b, state.seed) };
    const { a, b } = current;
    const chosen = facets.filter((facet) => state.filters[facet.key]?.size).map((facet) => [codesOf(facet), state.filters[facet.key]]);
    const tests = wordTests(state.q);
    const difference = new Float64Array(data.count);
    const found = [];
    for (let n = 0; n < data.count; n++) {
      if (a.entry[n] < 0 || b.entry[n] < 0) continue;
      if (!chosen.every(([codes, set]) => set.has(codes[n]))) continue;
      if (!tests.every((test) => test(wordsOf[n]))) continue;
      difference[n] = a.scores[n] < 0 || b.scores[n] < 0 ? NaN : a.scores[n] - b.scores[n];
      found.push(n);
    }
    const ranks = { gain: (n) => -difference[n], loss: (n) => difference[n], most: (n) => -Math.abs(difference[n]),
      "a-worst": (n) => (a.scores[n] < 0 ? NaN : a.scores[n]), "b-worst": (n) => (b.scores[n] < 0 ? NaN : b.scores[n]), number: (n) => n };
    const rank = new Float64Array(data.count);
    for (const n of found) rank[n] = ranks[state.sort](n);
    for (const n of found) if (Number.isNaN(rank[n])) rank[n] = Infinity;  // those that are not scored come last
    found.sort((x, y) => (rank[x] === rank[y] ? x - y : rank[x] - rank[y]));
    shown = found;
    current.difference = difference;
  }

  /* ---- what is shown ---- */

  function update(changesHash = true) {
    const began = performance.now();
    select();
    state.page = Math.min(state.page, Math.max(1, Math.ceil(shown.length / PER_PAGE)));
    summarise();
    count();
    cards();
    pages();
    if (changesHash) writeHash();
    document.body.dataset.milliseconds = (performance.now() - began).toFixed(1);
    document.body.dataset.shown = shown.length;
    const large = $("detail").open ? $("detail").dataset.unit : null;
    if (state.open !== null && state.open !== large) open(Number(state.open));
  }

  const labelOf = (side) => data.rows[state[side]].label;

  function summarise() {
    const { a, b, difference } = current;
    const scored = shown.filter((n) => !Number.isNaN(difference[n]));
    const pictures = scored.map((n) => data.units.picture[n]);
    const of = (values) => Numbers.mean(scored.map((n) => values(n) / 100), pictures, data.pictures.length);
    const mean = of((n) => difference[n]);
    const parts = [make("strong", { textContent: `${grouped(shown.length)} of ${grouped(data.count)} shown` })];
    if (scored.length) {
      const better = scored.filter((n) => difference[n] > 0).length, worse = scored.filter((n) => difference[n] < 0).length;
      const means = ["a", "b"].map((side) => of((n) => current[side].scores[n]).mean.toFixed(2));
      const interval = Number.isNaN(mean.half) ? "no interval of one picture" : `${signed(mean.mean - mean.half)} to ${signed(mean.mean + mean.half)}`;
      parts.push(`, in ${grouped(mean.pictures)} pictures. `, make("span", { className: "name-a", textContent: labelOf("a") }), ` ${means[0]}, `,
        make("span", { className: "name-b", textContent: labelOf("b") }), ` ${means[1]}; A − B `,
        make("strong", { id: "difference", textContent: signed(mean.mean) }), ` (${interval}). `,
        `A is better in ${grouped(better)}, B in ${grouped(worse)}, equal in ${grouped(scored.length - better - worse)}.`);
      if (scored.length < shown.length) parts.push(` ${grouped(shown.length - scored.length)} are not scored.`);
    }
    const seeds = state.seed === "all" ? "Means over seeds; masks and errors are of the first seed. " : "";
    $("summary").replaceChildren(make("div", {}, ...parts),
      make("div", { className: "soft", textContent: `${seeds}The interval (95 %) is over pictures alone: what other seeds would change stands in the report.` }));
  }

  function count() {
    const boxes = $("facets").querySelectorAll("input");
    const totals = new Map(facets.map((facet) => {
      const numbers = new Uint32Array(facet.names.length + 1), codes = codesOf(facet);
      for (const n of shown) numbers[codes[n]]++;
      return [facet.key, numbers];
    }));
    for (const box of boxes) {
      const number = totals.get(box.name)[Number(box.value)];
      box.parentElement.querySelector("b").textContent = grouped(number);
    }
  }

  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      observer.unobserve(entry.target);
      draw(entry.target, Number(entry.target.dataset.unit));
    }
  }, { rootMargin: "200px" });

  function cards() {
    observer.disconnect();
    const first = (state.page - 1) * PER_PAGE;
    const made = shown.slice(first, first + PER_PAGE).map(card);
    if (!made.length) made.push(make("p", { className: "soft", textContent: "Nothing is left by these filters (0 clears them)." }));
    $("cards").replaceChildren(...made);
    for (const each of $("cards").querySelectorAll(".card")) observer.observe(each);
  }

  function heading(n) {
    const units = data.units, said = [`#${units.number[n]}`];
    if (data.kind === "expressions" && units.distractors[n] !== null && units.distractors[n] >= 0) said.push(`distractors: ${units.distractors[n]}`);
    if (units.noTarget[n]) said.push("nothing is meant");
    else said.push(`${(units.share[n] / 100).toFixed(1)} % of the picture`);
    const text = data.kind === "expressions" ? `“${units.text[n]}”` : units.text[n];
    return make("h2", { dir: "auto" }, text, make("small", { textContent: `  ${said.join(", ")}` }));
  }

  function card(n) {
    const made = make("article", { className: "card", tabIndex: 0 }, heading(n), panels(n));
    made.dataset.unit = n;
    made.setAttribute("aria-label", `${data.units.text[n]}: difference ${Number.isNaN(current.difference[n]) ? "not scored" : signed(current.difference[n] / 100)}`);
    made.addEventListener("click", () => open(n));
    return made;
  }

  function panels(n) {
    const difference = current.difference[n];
    const of = (side) => `${percent(current[side].scores[n])}, ${data.classes[current[side].errors[n]]}`;
    return make("div", { className: "panels" },
      panel(n, "picture", "picture", ""), panel(n, "truth", "truth", ""),
      panel(n, "a", labelOf("a"), of("a")), panel(n, "b", labelOf("b"), of("b")),
      panel(n, "difference", "A − B", Number.isNaN(difference) ? "not scored" : signed(difference / 100)));
  }

  function panel(n, what, title, said) {
    const [source, height, width] = data.pictures[data.units.picture[n]];
    const image = make("img", { src: source, alt: what === "picture" ? `picture of “${data.units.text[n]}”` : "", loading: "lazy", decoding: "async" });
    const stage = make("div", { className: what === "picture" ? "stage" : "stage masked" }, image);
    image.onerror = () => stage.append(make("div", { className: "missing", textContent: "picture not there" }));
    stage.style.aspectRatio = `${width} / ${height}`;
    stage.style.maxWidth = `calc(min(72vh, 640px) * ${(width / height).toFixed(4)})`;
    const caption = make("figcaption", {}, make("span", { className: `name-${what}`, textContent: title }), said ? ` ${said}` : "");
    const figure = make("figure", { className: "panel" }, stage, caption);
    figure.dataset.what = what;
    return figure;
  }

  /** Draw the masks of a card or of the large view, once their files are there. */
  async function draw(holder, n) {
    const [height, width] = data.sizes[data.units.size[n]];
    const entries = [current.a.entry[n], current.b.entry[n]];
    const wanted = holder.dataset.wanted = `${n} ${entries}`;
    const [truth, a, b] = await Promise.all([counts("truth", n), ...entries.map((at) => counts(entryName(at), n))]);
    if (!holder.isConnected || holder.dataset.wanted !== wanted) return;  // it shows something else by now
    const decoded = [truth, a, b].map((each) => (each === null ? null : Masks.decode(each, height, width)));
    const painted = {
      truth: () => Masks.single(decoded[0], null, height, width, "truth"),
      a: () => decoded[1] && Masks.single(decoded[1], decoded[0], height, width, "a"),
      b: () => decoded[2] && Masks.single(decoded[2], decoded[0], height, width, "b"),
      difference: () => decoded[1] && decoded[2] && Masks.difference(decoded[1], decoded[2], decoded[0], height, width),
    };
    for (const figure of holder.querySelectorAll(".panels > .panel")) {
      if (!(figure.dataset.what in painted)) continue;
      const canvas = decoded[0] && painted[figure.dataset.what]();
      put(figure, canvas);
    }
    holder.dataset.drawn = "yes";
  }

  function put(figure, canvas) {
    const stage = figure.querySelector(".stage");
    for (const old of stage.querySelectorAll("canvas")) old.remove();
    stage.append(canvas || make("div", { className: "missing", textContent: "no mask" }));
  }

  function pages() {
    const last = Math.max(1, Math.ceil(shown.length / PER_PAGE));
    const button = (text, page) => {
      const made = make("button", { type: "button", textContent: text, disabled: page < 1 || page > last });
      made.addEventListener("click", () => turn(page));
      return made;
    };
    $("pages").hidden = last === 1;
    $("pages").replaceChildren(button("← previous", state.page - 1), make("span", { textContent: `page ${state.page} of ${grouped(last)}` }), button("next →", state.page + 1));
  }

  function turn(page) {
    const last = Math.max(1, Math.ceil(shown.length / PER_PAGE));
    if (page < 1 || page > last) return;
    state.page = page;
    cards();
    pages();
    writeHash();
    $("summary").scrollIntoView();
  }

  /* ---- the large view ---- */

  function open(n) {
    if (!(n >= 0 && n < data.count) || current.a.entry[n] < 0 || current.b.entry[n] < 0) { state.open = null; return; }
    state.open = $("detail").dataset.unit = String(n);
    writeHash();
    const at = shown.indexOf(n);
    const step = (text, by) => {
      const made = make("button", { type: "button", textContent: text, disabled: shown[at + by] === undefined });
      made.addEventListener("click", () => open(shown[at + by]));
      return made;
    };
    const close = make("button", { type: "button", textContent: "close" });
    close.addEventListener("click", () => $("detail").close());
    const bar = make("div", { className: "bar" }, make("span", {}, step("← previous", -1), " ", step("next →", 1)), close);
    const keys = [["a", "A right, B wrong"], ["b", "B right, A wrong"], ["both", "both wrong"], ["truth", "outline of the truth"]].map(([colour, text]) => {
      const square = make("i", { className: "key" });
      square.style.background = `rgb(${Masks.COLOURS[colour]})`;
      return make("span", {}, square, `${text}  `);
    });
    const others = make("div", { className: "others" });
    $("detail").replaceChildren(bar, heading(n), panels(n), make("p", { className: "soft" }, ...keys),
      make("h3", { textContent: "all rows" }), others);
    if (!$("detail").open) $("detail").showModal();
    draw($("detail"), n);
    data.rows.forEach((row, number) => other(others, n, row, number));
  }

  async function other(holder, n, row, number) {
    const found = answersOf(number, state.seed);
    const said = found.entry[n] < 0 ? "no answer" : `${percent(found.scores[n])}, ${data.classes[found.errors[n]]}`;
    const figure = panel(n, "row", row.label, said);
    for (const side of ["a", "b"]) {
      const choose = make("button", { type: "button", textContent: `as ${side.toUpperCase()}`, disabled: state[side] === number || found.entry[n] < 0 });
      choose.addEventListener("click", () => { state[side] = number; showState(); update(); open(n); });
      figure.append(choose);
    }
    holder.append(figure);
    if (found.entry[n] < 0) return;
    const [truth, mask] = await Promise.all([counts("truth", n), counts(entryName(found.entry[n]), n)]);
    const [height, width] = data.sizes[data.units.size[n]];
    put(figure, mask === null || truth === null ? null : Masks.single(Masks.decode(mask, height, width), Masks.decode(truth, height, width), height, width, "a"));
  }

  /* ---- events ---- */

  function changed() {
    state.page = 1;
    state.open = null;
    showState();
    update();
  }

  function swap() {
    [state.a, state.b] = [state.b, state.a];
    [state.filters["error-a"], state.filters["error-b"]] = [state.filters["error-b"] ?? new Set(), state.filters["error-a"] ?? new Set()];
    changed();
  }

  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("controls").addEventListener("input", (event) => {
    const { name, value, type, checked } = event.target;
    if (type === "checkbox") {
      const chosen = state.filters[name] ?? (state.filters[name] = new Set());
      if (checked) chosen.add(Number(value));
      else chosen.delete(Number(value));
    } else if (name) state[name] = name === "a" || name === "b" ? Number(value) : value;
    changed();
  });
  $("swap").addEventListener("click", swap);
  $("help-button").addEventListener("click", () => $("help").showModal());
  $("detail").addEventListener("close", () => {
    const n = state.open;
    state.open = null;
    writeHash();
    document.querySelector(`.card[data-unit="${n}"]`)?.focus();
  });
  $("detail").addEventListener("click", (event) => { if (event.target === $("detail")) $("detail").close(); });
  addEventListener("hashchange", () => { readHash(); if ($("detail").open && state.open === null) $("detail").close(); update(false); });

  function move(by) {
    const all = [...$("cards").querySelectorAll(".card")];
    const at = all.indexOf(document.activeElement);
    const next = all[at < 0 ? 0 : Math.min(all.length - 1, Math.max(0, at + by))];
    next?.focus();
    next?.scrollIntoView({ block: "nearest" });
  }

  addEventListener("keydown", (event) => {
    if (!data || event.ctrlKey || event.metaKey || event.altKey) return;
    if (["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName) && event.target.type !== "checkbox") {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const large = $("detail").open, at = shown.indexOf(Number(state.open));
    const acts = {
      j: () => move(1), k: () => move(-1),
      n: () => (large ? shown[at + 1] !== undefined && open(shown[at + 1]) : turn(state.page + 1)),
      p: () => (large ? at > 0 && open(shown[at - 1]) : turn(state.page - 1)),
      ArrowRight: () => large && shown[at + 1] !== undefined && open(shown[at + 1]),
      ArrowLeft: () => large && at > 0 && open(shown[at - 1]),
      Enter: () => document.activeElement.classList.contains("card") && open(Number(document.activeElement.dataset.unit)),
      "/": () => $("q").focus(), x: swap, f: () => { $("filters").open = !$("filters").open; },
      0: () => { state.filters = {}; state.q = ""; changed(); }, "?": () => $("help").showModal(),
    };
    const act = acts[event.key];
    if (!act || (event.key === "Enter" && event.target.tagName === "BUTTON") || (event.key.startsWith("Arrow") && !large)) return;
    if (event.key !== "Enter" || document.activeElement.classList.contains("card")) event.preventDefault();
    act();
  });

  return { index, masks };
})();
