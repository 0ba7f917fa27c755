// What every page has: the theme's button and the drawing of figures.
"use strict";
const autotune = (() => {
  const root = document.documentElement;
  const nonce = document.currentScript.nonce;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");
  const figures = [...document.querySelectorAll(".figure")];

  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

  // Plotly takes colours, not CSS: they are read from the page, where the theme has been applied.
  function colours(figure, layout) {
    const style = getComputedStyle(figure);
    const ground = getComputedStyle(figure.closest(".card") || document.body).backgroundColor;
    const update = {
      "font.color": style.color, "font.family": style.fontFamily, "hoverlabel.bgcolor": ground,
      "hoverlabel.bordercolor": style.borderTopColor, "hoverlabel.font.color": style.color,
      "modebar.bgcolor": "rgba(0,0,0,0)", "modebar.color": style.borderTopColor, "modebar.activecolor": style.color,
    };
    (layout.annotations || []).forEach((annotation, i) => {
      if (annotation.bgcolor) update[`annotations[${i}].bgcolor`] = ground; // a ground of its own is the page's
    });
    for (const axis of Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
      for (const line of ["gridcolor", "linecolor", "zerolinecolor", "tickcolor"]) {
        update[`${axis}.${line}`] = style.borderTopColor;
      }
    }
    return update;
  }

  // What relayout does with a path such as "annotations[0].bgcolor", before there is anything to lay out anew.
  function put(object, path, value) {
    const names = path.split(/[.[\]]+/);
    const last = names.pop();
    for (const name of names) object = object[name] ??= {};
    object[last] = value;
  }

  function recolour() {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Change to the ${isDark() ? "light" : "dark"} theme`);
    for (const figure of figures) if (figure.layout) Plotly.relayout(figure, colours(figure, figure.layout));
  }

  function setTheme(theme) {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    recolour();
  }

  // On a touch screen a finger on a plot scrolls the page.
  const touch = matchMedia("(pointer: coarse)").matches ? { dragmode: false } : {};
  const config = {
    responsive: true, displaylogo: false, doubleClick: "reset",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "select2d", "resetScale2d"]],
  };

  async function unpack() {
    const bytes = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.nonce = nonce;
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }

  async function draw() {
    if (!figures.length) return;
    if (!("DecompressionStream" in window)) {
      for (const figure of figures) figure.lastElementChild.textContent = "This browser is too old to draw the plot.";
      return;
    }
    await unpack();
    for (const figure of figures) {
      const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
      Object.assign(layout, touch);
      for (const [path, colour] of Object.entries(colours(figure, layout))) put(layout, path, colour);
      figure.replaceChildren();
      await Plotly.newPlot(figure, data, layout, config);
    }
  }

  // On paper: light, and no wider than a sheet is.
  let before;
  const resize = (size) => { for (const figure of figures) if (figure.layout) Plotly.relayout(figure, size(figure)); };
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    setTheme("light");
    resize((figure) => ({ width: Math.min(figure.clientWidth, 660) }));
  });
  addEventListener("afterprint", () => { setTheme(before); resize(() => ({ width: null, autosize: true })); });
  system.addEventListener("change", recolour);
  button.hidden = false;
  button.addEventListener("click", () => setTheme(isDark() ? "light" : "dark"));
  recolour();
  return { figures: draw() };
})();
