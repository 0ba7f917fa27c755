// The report's own: the plot's axes, the table's order and filters, one trial pointed out in all of them.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const pareto = $("pareto"), parallel = $("parallel"), table = $("trials");
  const rows = table ? [...table.tBodies[0].rows] : [];
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  let brushed = null; // the trials that were boxed in, or null for all
  let lines = null; // the heights of the parallel lines before any was filtered out

  // -- the plot of two quantities: trace 0 is the front, the last one rings a trial, one a group lies between

  function shownAxes() {
    const { axes } = pareto.layout.meta;
    return [axes[$("axis-across").value], axes[$("axis-up").value]];
  }

  function showAxes() {
    const { columns, fronts, box } = pareto.layout.meta;
    const [x, y] = shownAxes();
    const [front, ...groups] = pareto.data;
    const ring = groups.pop();
    Object.assign(front, fronts[x.key][y.key]);
    front.line.shape = x.direction === "minimize" ? "hv" : "vh";
    groups.forEach((trace, group) => {
      for (const [side, key] of [["x", x.key], ["y", y.key]]) {
        const { value, plus, minus } = columns[key];
        trace[side] = value[group];
        trace[`error_${side}`] = { ...trace[`error_${side}`], array: plus[group], arrayminus: minus[group] };
      }
    });
    [ring.x, ring.y] = pickedPoint();
    const layout = { ...pareto.layout };
    const shown = $("show-dimmed").checked ? "shown" : "shown_feasible";
    for (const [side, axis] of [["xaxis", x], ["yaxis", y]]) {
      layout[side] = { ...layout[side], title: { ...layout[side].title, text: axis.title }, range: axis[shown] };
    }
    const sides = { x0: x.allowed[0], x1: x.allowed[1], y0: y.allowed[0], y1: y.allowed[1] };
    layout.shapes = x.limits.length || y.limits.length ? [{ ...box, ...sides }] : [];
    Plotly.react(pareto, pareto.data, layout);
    noteAxes();
  }

  function noteAxes() {
    const limited = shownAxes().flatMap((axis) => axis.limits);
    const elsewhere = pareto.layout.meta.limits.filter((limit) => !limited.includes(limit));
    $("axes-note").textContent = [
      limited.length ? `Shaded: ${limited.join(" and ")}.` : "",
      elsewhere.length ? `Not on these axes: ${elsewhere.join(", ")}.` : "",
      "Whiskers are intervals; the dotted line joins the trials that none is better than in both.",
    ].filter(Boolean).join(" ");
  }

  function changeAxis(changed, other) {
    if (changed.value === other.value) other.value = changed.dataset.before;
    for (const select of [changed, other]) select.dataset.before = select.value;
    showAxes();
  }

  function showDimmed() {
    const visible = $("show-dimmed").checked;
    for (const plot of [pareto, parallel]) {
      const dimmed = (plot?.data || []).flatMap((trace, i) => (trace.meta?.dimmed ? [i] : []));
      if (dimmed.length) Plotly.restyle(plot, { visible }, dimmed);
    }
    showAxes();
  }

  // -- one trial pointed out everywhere

  let picked = null;

  function pickedPoint() {
    for (const trace of pareto.data.slice(1, -1)) {
      const i = trace.visible === false ? -1 : trace.customdata.indexOf(picked);
      if (i >= 0) return [[trace.x[i]], [trace.y[i]]];
    }
    return [[], []];
  }

  function ring() {
    if (!pareto?.data) return;
    const [x, y] = pickedPoint();
    Plotly.restyle(pareto, { x: [x], y: [y] }, [pareto.data.length - 1]);
  }

  function thicken() {
    if (!parallel?.data) return;
    const last = parallel.data.length - 1;
    let [x, y] = [[], []];
    for (const trace of parallel.data.slice(0, last)) {
      const at = trace.customdata.flatMap((number, i) => (number === picked ? [i] : []));
      if (at.length) [x, y] = [at.map((i) => trace.x[i]), at.map((i) => trace.y[i])];
    }
    Plotly.restyle(parallel, { x: [x], y: [y] }, [last]);
  }

  function pick(number) {
    picked = picked === number ? null : number;
    for (const row of rows) row.classList.toggle("picked", Number(row.dataset.number) === picked);
    ring();
    thicken();
    const row = picked === null ? null : $(`trial-${picked}`);
    const titles = [...table.tHead.rows[0].cells];
    const told = row ? [...row.cells].slice(1).flatMap((cell, i) => {
      const title = titles[i + 1], note = cell.querySelector("small")?.textContent;
      const said = [title.textContent.trim(), cell.firstChild.textContent.trim(), note].filter(Boolean).join(" ");
      return title.classList.contains("more") ? [] : [said];
    }) : [];
    if ($("picked")) $("picked").textContent = row ? `Trial ${picked}: ${told.join(" · ")}` : "";
  }

  // -- the table

  function keeps(row) {
    const data = row.dataset, state = $("filter-state").value, feasible = $("filter-feasible").value;
    return $("filter-text").value.toLowerCase().split(/\s+/).every((word) => texts.get(row).includes(word))
      && (!state || data.state === state) && (!feasible || data.feasible === feasible)
      && (!$("filter-front").checked || data.front) && (!brushed || brushed.has(Number(data.number)));
  }

  function filter() {
    const kept = new Set();
    for (const row of rows) {
      row.hidden = !keeps(row);
      if (!row.hidden) kept.add(Number(row.dataset.number));
    }
    const all = kept.size === rows.length;
    $("count").textContent = `${kept.size} of ${rows.length} trial${rows.length === 1 ? "" : "s"}`
      + (brushed ? ", by a box on the parameters too" : "");
    $("clear").hidden = all && !brushed;
    if (pareto?.data) {
      const groups = pareto.data.slice(1, -1);
      const selectedpoints = groups.map((trace) => (
        all ? null : trace.customdata.flatMap((number, i) => (kept.has(number) ? [i] : []))));
      Plotly.restyle(pareto, { selectedpoints }, groups.map((_, i) => i + 1));
    }
    if (lines) {
      const y = lines.map((heights, index) => (
        heights.map((height, i) => (kept.has(parallel.data[index].customdata[i]) ? height : null))));
      Plotly.restyle(parallel, { y }, lines.map((_, i) => i));
    }
  }

  function clear() {
    brushed = null;
    for (const id of ["filter-text", "filter-state", "filter-feasible"]) $(id).value = "";
    $("filter-front").checked = false;
    filter();
  }

  function sort(header) {
    const column = header.cellIndex;
    const down = header.getAttribute("aria-sort") === "ascending";
    for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keys = new Map(rows.map((row) => [row, row.cells[column].dataset.key]));
    rows.sort((a, b) => {
      const [p, q] = [keys.get(a), keys.get(b)];
      if (p === undefined || q === undefined) return (p === undefined) - (q === undefined);
      const order = isNaN(p) || isNaN(q) ? p.localeCompare(q, "en", { numeric: true }) : p - q;
      return (down ? -order : order) || a.dataset.number - b.dataset.number;
    });
    table.tBodies[0].append(...rows);
  }

  // -- wiring

  function wireTable() {
    let waiting;
    $("filter-text").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 120); });
    for (const id of ["filter-state", "filter-feasible", "filter-front"]) $(id).addEventListener("change", filter);
    $("more")?.addEventListener("change", () => table.classList.toggle("all", $("more").checked));
    $("clear").addEventListener("click", clear);
    table.tHead.addEventListener("click", (event) => {
      const button = event.target.closest(".sort");
      if (button) sort(button.closest("th"));
    });
    table.tBodies[0].addEventListener("click", (event) => {
      if (event.target.closest(".pick")) pick(Number(event.target.closest("tr").dataset.number));
    });
    filter();
  }

  function wirePareto() {
    const [across, up] = [$("axis-across"), $("axis-up")];
    for (const select of [across, up]) select.dataset.before = select.value;
    across.addEventListener("change", () => changeAxis(across, up));
    up.addEventListener("change", () => changeAxis(up, across));
    $("show-dimmed").addEventListener("change", showDimmed);
    pareto.on("plotly_click", (event) => pick(event.points[0].customdata));
    noteAxes();
  }

  function wireParallel() {
    lines = parallel.data.slice(0, -1).map((trace) => trace.y);
    parallel.on("plotly_click", (event) => pick(event.points[0].customdata));
    parallel.on("plotly_selected", (event) => {
      if (!event?.points.length) return;
      brushed = new Set(event.points.map((point) => point.customdata));
      Plotly.update(parallel, { selectedpoints: null }, { selections: [] });
      filter();
    });
    parallel.on("plotly_doubleclick", clear);
  }

  if (table) wireTable();
  autotune.figures.then(() => {
    if (pareto?.data) wirePareto();
    if (parallel?.data) wireParallel();
  });
})();
