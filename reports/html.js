"use strict";
(() => {
  const root = document.documentElement;
  const one = (selector, from = document) => from.querySelector(selector);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const make = (name, className, text) => {
    const element = document.createElement(name);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };

  // Theme: what was chosen, else what the system prefers.  Storage may be refused for file: pages.
  const stored = () => { try { return localStorage.getItem("rlsaudit-theme"); } catch { return null; } };
  const theme = (name) => {
    root.dataset.theme = name;
    const other = name === "dark" ? "light" : "dark";
    one("#theme").textContent = other === "dark" ? "Dark" : "Light";
    one("#theme").setAttribute("aria-label", `Switch to ${other} theme`);
  };
  const wanted = new URLSearchParams(location.search).get("theme") || stored();
  theme(["dark", "light"].includes(wanted) ? wanted : matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  one("#theme").onclick = () => {
    theme(root.dataset.theme === "dark" ? "light" : "dark");
    try { localStorage.setItem("rlsaudit-theme", root.dataset.theme); } catch { /* only this page then */ }
  };
  one("#print").onclick = () => print();
  all("[data-script]").forEach((element) => { element.hidden = false; });

  // Copy buttons: the clipboard API needs a secure context, which file: is not everywhere.
  all("[data-copy]").forEach((button) => {
    button.onclick = async () => {
      const text = one("pre", button.closest("div.block")).textContent;
      try { await navigator.clipboard.writeText(text); } catch {
        const area = make("textarea", "", text);
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1200);
    };
  });

  // Matrix: rows come from the embedded JSON; long ones are drawn only where they are seen.
  const data = JSON.parse(one("#data").textContent);
  const STATES = [
    ["leak", "s-leak", "✕"], ["not covered", "s-gap", "!"], ["waived", "s-waived", "W"],
    ["held", "s-held", ""], ["proven", "s-proven", "✓"], ["no privilege", "s-nopriv", "·"],
  ];
  const MISSING = ["no result recorded", "s-none", "?"];
  const ROW = 28, LONG = 160, MARGIN = 12;
  const box = one("#mx"), body = one("#mx tbody"), search = one("#q"), status = one("#cnt"), fold = one("#fold");
  const { roles, commands, reasons, findings } = data;
  const width = 1 + roles.length * (commands.length + 1) - (roles.length ? 1 : 0);
  const rows = data.rows.map(([schema, name, kind, cells], index) => {
    const states = new Set(cells.map((cell) => (cell ? cell[0] : -1)));
    const relation = schema ? `${schema}.${name}` : name;
    return { index, schema, name, kind, cells, states, relation, text: relation.toLowerCase(), idle: states.size === 1 && states.has(5) };
  });
  const idle = rows.filter((row) => row.idle).length;
  let filter = "all", showIdle = idle === rows.length, items = [], shown = [-1, -1], everything = false;

  const words = (row, at) => {
    const [role, command] = [roles[Math.floor(at / commands.length)], commands[at % commands.length]];
    const cell = row.cells[at];
    const [state] = cell ? STATES[cell[0]] : MISSING;
    const trials = cell && cell[1] ? `, ${cell[1].toLocaleString("en")} ${cell[1] === 1 ? "statement" : "statements"}` : "";
    return { role, command, state, trials, reason: cell ? reasons[cell[2]] : "the run recorded nothing here, so nothing is claimed" };
  };

  const drawRow = (row) => {
    const line = make("tr");
    const head = make("th", "", row.name);
    head.scope = "row";
    head.title = row.relation;
    if (row.kind && row.kind !== "table") head.append(" ", make("small", "", row.kind));
    line.append(head);
    row.cells.forEach((cell, at) => {
      if (at && at % commands.length === 0) line.append(make("td", "sep"));
      const [, style, glyph] = cell ? STATES[cell[0]] : MISSING;
      const { role, command, state, trials, reason } = words(row, at);
      const button = make("button", `cell ${style}`, glyph || (cell[1] > 9999 ? `${Math.floor(cell[1] / 1000)}k` : String(cell[1])));
      button.dataset.row = row.index;
      button.dataset.at = at;
      button.setAttribute("aria-label", `${command} on ${row.relation} as ${role}: ${state}${trials}. ${reason}`);
      const place = make("td", "x");
      place.append(button);
      line.append(place);
    });
    return line;
  };
  const drawItem = (item) => {
    if (item.cells) return drawRow(item);
    const line = make("tr", "grp"), head = make("th", "", item.group || "no schema");
    head.scope = "rowgroup";
    head.colSpan = width;
    line.append(head);
    return line;
  };
  const spacer = (height) => {
    const line = make("tr", "spacer"), place = make("td");
    place.colSpan = width;
    place.style.height = `${height}px`;
    line.append(place);
    return line;
  };
  const draw = (force) => {
    const long = items.length > LONG && !everything;
    box.classList.toggle("win", long);
    // The heading of the schema scrolls away, so the corner names it.
    const seen = items[Math.min(Math.floor(box.scrollTop / ROW), items.length - 1)];
    const corner = one("#mx thead tr:last-child td");
    if (corner) corner.textContent = long && seen ? (seen.cells ? seen.schema : seen.group) : "";
    const first = long ? Math.max(0, Math.floor(box.scrollTop / ROW) - MARGIN) : 0;
    const last = long ? Math.min(items.length, first + Math.ceil(box.clientHeight / ROW) + 2 * MARGIN) : items.length;
    if (!force && Math.abs(first - shown[0]) < MARGIN / 2 && last <= shown[1] + MARGIN / 2) return;
    shown = [first, last];
    const lines = items.slice(first, last).map(drawItem);
    if (first) lines.unshift(spacer(first * ROW));
    if (last < items.length) lines.push(spacer((items.length - last) * ROW));
    body.replaceChildren(...lines);
    one("table", box).setAttribute("aria-rowcount", items.length + 2);
  };
  const apply = () => {
    const term = search.value.trim().toLowerCase();
    let count = 0, group = null;
    items = [];
    rows.forEach((row) => {
      if (row.idle && !showIdle && filter === "all" && !term) return;
      if (term && !row.text.includes(term)) return;
      if (filter !== "all" && !row.states.has(Number(filter))) return;
      if (row.schema !== group) items.push({ group: group = row.schema });
      items.push(row);
      count += 1;
    });
    status.textContent = `${count.toLocaleString("en")} of ${rows.length.toLocaleString("en")} relations`;
    if (fold) {
      fold.hidden = !idle || idle === rows.length;
      fold.setAttribute("aria-pressed", showIdle);
      fold.textContent = `${showIdle ? "Hide" : "Show"} ${idle.toLocaleString("en")} without any privilege`;
    }
    box.scrollTop = 0;
    draw(true);
  };
  const choose = (value) => {
    filter = value;
    all(".chip[data-f]").forEach((chip) => chip.setAttribute("aria-pressed", chip.dataset.f === value));
    apply();
  };
  const remember = () => {
    const state = filter === "all" ? filter : STATES[filter][0];
    history.replaceState(null, "", `#filter=${encodeURIComponent(state)}/${encodeURIComponent(search.value)}`);
  };
  if (roles.length) {
    const [top, below] = [make("tr"), make("tr")];
    top.append(make("td"));
    below.append(make("td"));
    roles.forEach((role, at) => {
      if (at) [top, below].forEach((line) => line.append(make("td", "sep")));
      const head = make("th", "role", role);
      head.colSpan = commands.length;
      head.scope = "colgroup";
      head.title = role;
      top.append(head);
      commands.forEach((command) => {
        const cell = make("th"), short = make("abbr", "", command.slice(0, 3));
        cell.scope = "col";
        short.title = command;
        cell.append(short);
        below.append(cell);
      });
    });
    one("#mx thead").replaceChildren(top, below);
    all(".chip[data-f]").forEach((chip) => { chip.onclick = () => { choose(chip.dataset.f); remember(); }; });
    all("a[data-filter]").forEach((link) => link.addEventListener("click", () => choose(link.dataset.filter)));
    fold.onclick = () => { showIdle = !showIdle; apply(); };
    search.oninput = () => { apply(); remember(); };
    let waiting = false;
    box.addEventListener("scroll", () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; draw(false); });
    }, { passive: true });
    apply();
  }

  // A cell's evidence, with an address of its own.
  const dialog = one("#dlg");
  const address = (row, at) => {
    const { role, command } = words(row, at);
    return `#cell=${[row.relation, role, command].map(encodeURIComponent).join("/")}`;
  };
  const open = (row, at) => {
    const { role, command, state, trials, reason } = words(row, at);
    const cell = row.cells[at], [, style, glyph] = cell ? STATES[cell[0]] : MISSING;
    one("h3", dialog).textContent = `${command} on ${row.relation} as ${role}`;
    one(".state", dialog).replaceChildren(make("span", `sw ${style}`, glyph || "n"), `${state}${trials}`);
    one(".tx", dialog).textContent = reason;
    one(".refs", dialog).replaceChildren(...((cell && cell[3]) || []).map((number) => {
      const item = make("li"), link = make("a", "", `${findings[number][0]} ${findings[number][1]}`);
      link.href = `#${findings[number][0]}`;
      link.onclick = () => dialog.close();
      item.append(link);
      return item;
    }));
    one(".here", dialog).href = address(row, at);
    if (!dialog.open) dialog.showModal();
  };
  box.addEventListener("click", (event) => {
    const button = event.target.closest("button.cell");
    if (button) open(rows[button.dataset.row], Number(button.dataset.at));
  });
  box.addEventListener("keydown", (event) => {
    const button = event.target.closest("button.cell");
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!button || !step) return;
    const lines = all("tr", body).filter((line) => one("button", line));
    const line = lines[lines.indexOf(button.closest("tr")) + step[0]];
    const next = line && all("button", line)[Number(button.dataset.at) + step[1]];
    if (next) { event.preventDefault(); next.focus(); }
  });
  one("button", dialog).onclick = () => dialog.close();
  dialog.onclick = (event) => { if (event.target === dialog) dialog.close(); };

  const follow = () => {
    const hash = location.hash.slice(1);
    const [kind, rest] = hash.split("=", 2);
    if (roles.length && rest !== undefined && ["cell", "filter"].includes(kind)) {
      let parts;
      try { parts = rest.split("/").map(decodeURIComponent); } catch { return; }
      if (kind === "filter") {
        search.value = parts[1] || "";
        const state = STATES.findIndex(([name]) => name === parts[0]);
        choose(state < 0 ? "all" : String(state));
        one("#matrix").scrollIntoView();
        return;
      }
      const row = rows.find((candidate) => candidate.relation === parts[0]);
      const at = roles.indexOf(parts[1]) * commands.length + commands.indexOf(parts[2]);
      if (!row || !roles.includes(parts[1]) || !commands.includes(parts[2])) return;
      one("#matrix").scrollIntoView();
      open(row, at);
      return;
    }
    const target = hash && document.getElementById(hash);
    for (let outer = target; outer; outer = outer.parentElement) if (outer.tagName === "DETAILS") outer.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", follow);
  follow();

  addEventListener("keydown", (event) => {
    const typing = event.target.closest && event.target.closest("input, textarea, dialog");
    if (event.key === "/" && roles.length && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      search.focus();
    }
  });

  // Paper shows everything.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    opened.forEach((details) => { details.open = true; });
    everything = true;
    draw(true);
  });
  addEventListener("afterprint", () => {
    opened.forEach((details) => { details.open = false; });
    everything = false;
    draw(true);
  });

  const spy = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
    all(".side a").forEach((link) => {
      const on = link.hash === `#${entry.target.id}`;
      link.classList.toggle("on", on);
      if (on) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
    });
  }), { rootMargin: "-60px 0px -70% 0px" });
  all("main section[id]").forEach((section) => spy.observe(section));
})();
