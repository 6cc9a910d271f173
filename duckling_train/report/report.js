"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const about = JSON.parse(byId("about").textContent);
  const text = byId("data").textContent;
  const bytes = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const KINDS = { i2: Int16Array, u1: Uint8Array, i4: Int32Array, f4: Float32Array };
  const array = ([kind, at, count]) => new KINDS[kind](bytes.buffer, bytes.byteOffset + at, count);
  const counts = about.counts && array(about.counts);
  const distances = about.distance && array(about.distance);

  // Colours that the colour-blind can tell apart (Okabe and Ito, 2008); regimes also differ in lightness, for print.
  const LIGHT = { ink: "#1d2329", soft: "#59626c", line: "#e3e7ea", page: "#ffffff", live: "#8b949d", dead: "#0072B2", mark: "#D55E00",
    colours: about.colours, regimes: ["#E3E8EC", "#7FB8DE", "#D55E00", "#4A0F3A"] };
  const DARK = { ink: "#e6e9ec", soft: "#a3adb8", line: "#2c333b", page: "#14181c", live: "#77818c", dead: "#56B4E9", mark: "#F0A04B",
    colours: ["#56B4E9", "#F07F4F", "#2BC59A", "#E09BC4", "#F0E442", "#E69F00", "#FFFFFF"],
    regimes: ["#2A323B", "#3F7FB0", "#E8893B", "#FBE6A2"] };
  const DASHES = [[], [8, 4], [3, 3], [10, 3, 3, 3], [14, 5]];
  const OF_ONE_RUN = [0, 1, 0, 2, 0, 3, 0]; // curves that lie on one another are both seen
  const dark = matchMedia("screen and (prefers-color-scheme: dark)");
  let printing = false;
  const look = () => (dark.matches && !printing ? DARK : LIGHT);
  const redraws = [];
  const redraw = () => redraws.forEach((draw) => draw());
  dark.addEventListener("change", redraw);
  addEventListener("beforeprint", () => { printing = true; redraw(); });
  addEventListener("afterprint", () => { printing = false; redraw(); });

  const whole = (value) => value.toLocaleString("en-US");
  const number = (value) => {
    const size = Math.abs(value);
    if (size === 0 || (Number.isInteger(value) && size < 1e6)) return whole(value);
    return size < 1e-3 || size >= 1e5 ? value.toExponential(2).replace(/\.?0+e/, "e") : String(Number(value.toPrecision(4)));
  };
  const named = (id) => {
    const token = about.tokens[id];
    const seen = counts && counts[id] >= 0 ? `, counted ${whole(counts[id])} times` : "";
    return `row ${whole(id)}, ` + (about.dead[0] <= id && id < about.dead[1] ? "dead" : `live, token ${token === null ? "unknown" : JSON.stringify(token)}${seen}`);
  };

  // A canvas that is drawn anew when its size changes; `draw` is given its context and its size in CSS pixels.
  const surface = (canvas, height, draw) => {
    const context = canvas.getContext("2d");
    let last = 0;
    const again = () => {
      const width = canvas.clientWidth, tall = Math.round(height(width)), dots = devicePixelRatio || 1;
      if (!width) return;
      if (canvas.width !== Math.round(width * dots) || canvas.height !== Math.round(tall * dots)) {
        canvas.width = Math.round(width * dots);
        canvas.height = Math.round(tall * dots);
        canvas.style.height = `${tall}px`;
      }
      context.setTransform(dots, 0, 0, dots, 0, 0);
      context.fillStyle = look().page;
      context.fillRect(0, 0, width, tall);
      draw(context, width, tall);
    };
    new ResizeObserver(() => { if (canvas.clientWidth !== last) { last = canvas.clientWidth; again(); } }).observe(canvas);
    redraws.push(again);
    return again;
  };
  const ticks = (low, high, most) => {
    const raw = (high - low) / most || 1, power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 5, 10].find((each) => each * power >= raw * 0.999), found = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(n * step);
    return found;
  };
  // Axes, and the functions from values to pixels.
  const axes = (c, width, height, [x0, x1], [y0, y1], xLabel, yLabel) => {
    const left = 58, right = 22, top = 10, bottom = 44, { soft, line } = look();
    const plot = { left, top, right: width - right, bottom: height - bottom };
    const x = (value) => left + ((value - x0) / (x1 - x0)) * (plot.right - left);
    const y = (value) => plot.bottom - ((value - y0) / (y1 - y0)) * (plot.bottom - top);
    c.font = "12px system-ui, sans-serif"; c.fillStyle = soft; c.strokeStyle = line; c.lineWidth = 1;
    c.textAlign = "center"; c.textBaseline = "top";
    for (const value of ticks(x0, x1, Math.max(2, width / 110))) {
      c.beginPath(); c.moveTo(x(value), top); c.lineTo(x(value), plot.bottom); c.stroke();
      c.fillText(number(Number(value.toPrecision(6))), x(value), plot.bottom + 5);
    }
    c.textAlign = "right"; c.textBaseline = "middle";
    for (const value of ticks(y0, y1, Math.max(2, height / 60))) {
      c.beginPath(); c.moveTo(left, y(value)); c.lineTo(plot.right, y(value)); c.stroke();
      c.fillText(number(Number(value.toPrecision(6))), left - 6, y(value));
    }
    c.textAlign = "center"; c.textBaseline = "bottom"; c.fillText(xLabel, (left + plot.right) / 2, height - 4);
    c.save(); c.translate(12, (top + plot.bottom) / 2); c.rotate(-Math.PI / 2); c.fillText(yLabel, 0, 4); c.restore();
    return { ...plot, x, y };
  };
  const swatch = (c, colour, x, y, width, height) => {
    c.fillStyle = colour; c.fillRect(x, y, width, height);
    c.strokeStyle = look().soft; c.lineWidth = 1; c.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
  };
  const pointer = (canvas, over, out) => {
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      over(event.clientX - box.left, event.clientY - box.top);
    });
    canvas.addEventListener("pointerleave", out);
  };
  const keys = (element, moves) => element.addEventListener("keydown", (event) => {
    if (moves[event.key] && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); moves[event.key](); }
  });

  const curves = (name, spec) => {
    const host = byId(`plot-${name}`), said = byId(`said-${name}`), key = byId(`key-${name}`);
    const several = about.runs.length > 1, stacked = spec.stacked && !several;
    const lines = spec.series.map(({ run, column, x, y }) => ({
      label: several ? `${about.runs[run]}: ${spec.columns[column]}` : spec.columns[column],
      colour: () => (stacked ? look().regimes[column] : look().colours[(several ? run : column) % look().colours.length]),
      dash: stacked ? [] : DASHES[several ? (column + Math.floor(run / 7)) % DASHES.length : (OF_ONE_RUN[column % 7] + Math.floor(column / 7)) % DASHES.length],
      x: Array.from(array(x)), y: Array.from(array(y)),
    }));
    let least = Infinity, most = 0;
    for (const each of lines) for (const value of each.y) if (value > 0) { least = Math.min(least, value); most = Math.max(most, value); }
    const logarithmic = spec.logarithmic && most / least > 20;
    const joined = uPlot.join(lines.map((each) => [each.x, logarithmic ? each.y.map((v) => (v > 0 ? v : null)) : each.y]));
    const steps = joined[0];
    let order = lines.map((_, n) => n), drawn = joined;
    if (stacked) { // areas from 0, the highest first: each covers the lower part of the one before
      const sums = lines.map(() => new Array(steps.length).fill(0));
      steps.forEach((_, at) => lines.reduce((sum, _line, n) => (sums[n][at] = sum + (joined[n + 1][at] || 0)), 0));
      order.reverse();
      drawn = [steps, ...order.map((n) => sums[n])];
    }
    const axis = (more) => ({ stroke: () => look().soft, font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif", labelSize: 18,
      grid: { stroke: () => look().line, width: 1 }, ticks: { stroke: () => look().line, width: 1 }, ...more });
    const values = (_, found) => found.map((value) => (value === null ? "" : number(Number(value.toPrecision(6)))));
    let at = null, plot = null;
    const say = () => {
      if (at === null) { said.textContent = ""; return; }
      const parts = lines.map((each, n) => {
        let place = at;
        while (place > 0 && joined[n + 1][place] == null) place--;
        const value = joined[n + 1][place];
        return value == null ? "" : `${each.label} ${number(value)}`;
      });
      said.textContent = [`step ${whole(steps[at])}`, ...parts.filter(Boolean)].join(" · ");
    };
    const only = steps.length < 3;
    const bounds = [least / 1.5, most * 1.5];
    const decades = () => { // every so many powers of ten, at most six; of less than three, their double and fivefold, too
      const [low, high] = bounds.map(Math.log10), every = Math.ceil((high - low) / 6), found = [];
      for (let n = Math.floor(low); n <= high; n += every) for (const times of high - low < 3 ? [1, 2, 5] : [1]) found.push(times * 10 ** n);
      return found.filter((value) => bounds[0] <= value && value <= bounds[1]);
    };
    const y = stacked ? { range: [0, 1] } : logarithmic ? { distr: 3, range: bounds }
      : { range: (_, low, high) => (low === high ? (low === 0 ? [0, 1] : [low - Math.abs(low) / 2, low + Math.abs(low) / 2]) : uPlot.rangeNum(low, high, 0.1, true)) };
    plot = new uPlot({
      width: Math.max(host.clientWidth, 200), height: 260, legend: { show: false }, padding: [10, 24, 0, 0],
      scales: { x: { time: false }, y },
      cursor: { drag: { x: true, y: false }, points: { show: !stacked } },
      axes: [axis({ label: "step", size: 34, values }), axis({ label: logarithmic ? `${spec.unit} (logarithmic)` : spec.unit, size: 58, values, ...(logarithmic && { splits: decades, filter: (_, found) => found }) })],
      series: [{}, ...order.map((n) => ({ stroke: () => (stacked ? look().page : lines[n].colour()), width: stacked ? 0.5 : 1.7, dash: lines[n].dash,
        fill: stacked ? () => lines[n].colour() : undefined, spanGaps: true, points: { show: only } }))],
      hooks: { setCursor: [(u) => { at = u.cursor.left < 0 ? null : u.cursor.idx; say(); }] },
    }, drawn, host);
    const go = (to) => {
      const next = Math.min(Math.max(to, 0), steps.length - 1);
      plot.setCursor({ left: plot.valToPos(steps[next], "x"), top: plot.over.clientHeight / 2 }, false);
      at = next; say();
    };
    const from = (move) => () => go((at === null ? 0 : at) + move);
    keys(host, { ArrowLeft: from(-1), ArrowRight: from(1), PageUp: from(-Math.ceil(steps.length / 10)),
      PageDown: from(Math.ceil(steps.length / 10)), Home: () => go(0), End: () => go(steps.length - 1) });
    lines.forEach((each, n) => {
      const item = document.createElement("li"), button = document.createElement("button"), sample = document.createElement("canvas");
      button.type = "button"; button.setAttribute("aria-pressed", "true"); sample.width = 52; sample.height = 24; sample.setAttribute("aria-hidden", "true");
      const paint = () => {
        const c = sample.getContext("2d");
        c.clearRect(0, 0, 52, 24);
        if (stacked) { swatch(c, each.colour(), 8, 2, 36, 20); return; }
        c.strokeStyle = each.colour(); c.lineWidth = 4; c.setLineDash(each.dash.map((part) => part * 1.6));
        c.beginPath(); c.moveTo(0, 12); c.lineTo(52, 12); c.stroke();
      };
      paint(); redraws.push(paint);
      button.append(sample, each.label);
      button.disabled = stacked;
      button.addEventListener("click", () => {
        const show = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(show));
        plot.setSeries(order.indexOf(n) + 1, { show });
      });
      item.append(button); key.append(item);
    });
    redraws.push(() => plot.redraw(false));
    new ResizeObserver(() => { if (host.clientWidth && host.clientWidth !== plot.width) plot.setSize({ width: host.clientWidth, height: 260 }); }).observe(host);
  };

  const cloud = (spec) => {
    const canvas = byId("cloud"), slider = byId("step"), play = byId("play"), said = byId("said-cloud"), where = byId("at");
    const live = byId("live"), steps = array(spec.steps), ids = array(spec.ids), liveSteps = array(spec.live_steps), liveIds = array(spec.live_ids);
    const many = ids.length, others = liveIds.length, onset = spec.onset && array(spec.onset);
    const views = Object.fromEntries(Object.entries(spec.views).map(([name, view]) => {
      const points = array(view.points), behind = view.live && array(view.live), { scale, offset } = view;
      const value = (q, axis) => q * scale + offset[axis];
      const path = new Float64Array(steps.length * 2), low = [0, 0], high = [0, 0];
      for (const part of [points, behind || []]) for (let n = 0; n < part.length; n++) {
        const v = value(part[n], n & 1);
        if (v < low[n & 1]) low[n & 1] = v; else if (v > high[n & 1]) high[n & 1] = v;
      }
      for (let frame = 0; frame < steps.length; frame++) for (let axis = 0; axis < 2; axis++) {
        let sum = 0;
        for (let n = 0; n < many; n++) sum += points[(frame * many + n) * 2 + axis];
        path[frame * 2 + axis] = value(sum / many, axis);
      }
      return [name, { ...view, points, behind, value, path, low, high }];
    }));
    let view = views[Object.keys(views)[0]], frame = 0, chosen = null, plot = null, timer = null;
    const liveFrame = () => { let n = 0; while (n + 1 < liveSteps.length && liveSteps[n + 1] <= steps[frame]) n++; return n; };
    const place = (isLive, n) => { // the value of a point in this frame
      const [from, q] = isLive ? [view.behind, (liveFrame() * others + n) * 2] : [view.points, (frame * many + n) * 2];
      return [view.value(from[q], 0), view.value(from[q + 1], 1)];
    };
    // Both axes have one scale, so that distances in the picture are distances.
    const span = () => view.low.map((low, axis) => (view.high[axis] - low) * 1.06 || 1);
    const tall = (width) => 54 + Math.min(Math.max((span()[1] / span()[0]) * (width - 80), 250), Math.max(320, Math.min(width * 0.62, 560)));
    const draw = (c, width, height) => {
      const { dead, live: grey, mark, soft, ink } = look();
      const inner = [width - 80, height - 54], size = Math.max(span()[0] / inner[0], span()[1] / inner[1]);
      const ranges = [0, 1].map((axis) => {
        const middle = (view.low[axis] + view.high[axis]) / 2;
        return [middle - (size * inner[axis]) / 2, middle + (size * inner[axis]) / 2];
      });
      plot = axes(c, width, height, ranges[0], ranges[1], view.labels[0], view.labels[1]);
      const kx = view.scale / size, ky = -kx, x0 = plot.x(view.offset[0]), y0 = plot.y(view.offset[1]);
      c.save(); c.beginPath(); c.rect(plot.left, plot.top, plot.right - plot.left, plot.bottom - plot.top); c.clip();
      const dots = (points, first, count, colour, alpha, wide) => {
        c.fillStyle = colour; c.globalAlpha = alpha;
        for (let q = first * 2, end = (first + count) * 2; q < end; q += 2) c.fillRect(x0 + points[q] * kx - wide / 2, y0 + points[q + 1] * ky - wide / 2, wide, wide);
        c.globalAlpha = 1;
      };
      if (view.behind && live.checked) dots(view.behind, liveFrame() * others, others, grey, 0.35, 1.6);
      dots(view.points, frame * many, many, dead, 0.6, 2.4);
      c.strokeStyle = soft; c.lineWidth = 1; c.beginPath(); // the origin
      c.moveTo(plot.x(0) - 7, plot.y(0)); c.lineTo(plot.x(0) + 7, plot.y(0)); c.moveTo(plot.x(0), plot.y(0) - 7); c.lineTo(plot.x(0), plot.y(0) + 7); c.stroke();
      const trail = (at, colour, wide) => {
        c.strokeStyle = colour; c.lineWidth = wide; c.beginPath();
        for (let n = 0; n <= frame; n++) c.lineTo(plot.x(at(n, 0)), plot.y(at(n, 1)));
        c.stroke();
      };
      trail((n, axis) => view.path[n * 2 + axis], mark, 2);
      if (chosen) {
        if (!chosen.live) trail((n, axis) => view.value(view.points[(n * many + chosen.n) * 2 + axis], axis), ink, 1.2);
        const [x, y] = place(chosen.live, chosen.n);
        c.strokeStyle = ink; c.lineWidth = 2; c.beginPath(); c.arc(plot.x(x), plot.y(y), 6, 0, 7); c.stroke();
      }
      c.restore();
      c.fillStyle = ink; c.font = "600 14px system-ui, sans-serif"; c.textAlign = "right"; c.textBaseline = "top";
      c.fillText(`step ${whole(steps[frame])}`, plot.right - 8, plot.top + 8);
    };
    const again = surface(canvas, tall, draw);
    const say = () => {
      if (!chosen) { said.textContent = ""; return; }
      const id = (chosen.live ? liveIds : ids)[chosen.n], [x, y] = place(chosen.live, chosen.n);
      const at = chosen.live ? liveSteps[liveFrame()] : steps[frame];
      const more = [`${view.short[0]} ${number(x)}`, `${view.short[1]} ${number(y)}`];
      if (!chosen.live && onset) more.push(`last moved in step ${whole(onset[chosen.n])}`);
      if (distances) more.push(`distance from the start ${number(distances[id])}`);
      said.textContent = [named(id), `step ${whole(at)}`, ...more].join(" · ");
    };
    const choose = (next) => { chosen = next; say(); again(); };
    const show = (to) => {
      frame = Math.min(Math.max(to, 0), steps.length - 1);
      slider.value = frame;
      slider.setAttribute("aria-valuetext", `step ${whole(steps[frame])}`);
      where.textContent = `step ${whole(steps[frame])} of ${whole(steps[steps.length - 1])}`;
      again();
      if (chosen && timer === null) say();
    };
    const stop = () => { if (timer !== null) cancelAnimationFrame(timer); timer = null; play.textContent = "Play"; say(); };
    play.addEventListener("click", () => {
      if (timer !== null) { stop(); return; }
      if (frame === steps.length - 1) show(0);
      play.textContent = "Pause";
      let shown = 0;
      const next = (now) => {
        if (now - shown > 30) { shown = now; show(frame + 1); }
        if (frame === steps.length - 1) stop(); else timer = requestAnimationFrame(next);
      };
      timer = requestAnimationFrame(next);
    });
    slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
    live.addEventListener("change", again);
    for (const radio of document.querySelectorAll("input[name=view]")) radio.addEventListener("change", () => { view = views[radio.value]; again(); say(); });
    pointer(canvas, (x, y) => {
      let best = null, nearest = 18 ** 2;
      const test = (isLive, count) => {
        for (let n = 0; n < count; n++) {
          const [u, v] = place(isLive, n), far = (plot.x(u) - x) ** 2 + (plot.y(v) - y) ** 2;
          if (far < nearest) { nearest = far; best = { live: isLive, n }; }
        }
      };
      test(false, many);
      if (!best && view.behind && live.checked) test(true, others);
      choose(best);
    }, () => choose(null));
    const turn = (move) => () => {
      const both = (view.behind ? others : 0) + many, now = chosen === null ? -1 : chosen.live ? many + chosen.n : chosen.n;
      const next = chosen === null ? 0 : (now + move + both) % both;
      choose(next < many ? { live: false, n: next } : { live: true, n: next - many });
    };
    keys(canvas, { ArrowRight: turn(1), ArrowLeft: turn(-1), ArrowUp: () => show(frame + 1), ArrowDown: () => show(frame - 1),
      Home: () => show(0), End: () => show(steps.length - 1), Escape: () => choose(null) });
    show(steps.length - 1);
  };

  const motion = (spec) => {
    const canvas = byId("motion"), said = byId("said-motion"), edges = array(spec.edges), order = array(spec.order), onset = array(spec.onset);
    const rows = order.length, columns = edges.length - 1, packed = array(spec.packed), wide = Math.ceil(columns / 4);
    const regime = (row, column) => (packed[row * wide + (column >> 2)] >> (2 * (column & 3))) & 3;
    const picture = document.createElement("canvas");
    picture.width = columns; picture.height = rows;
    let painted = null, chosen = null, plot = null;
    const paint = () => {
      painted = look();
      const c = picture.getContext("2d"), image = c.createImageData(columns, rows), pixels = new Uint32Array(image.data.buffer);
      const words = painted.regimes.map((hex) => { const v = parseInt(hex.slice(1), 16); return (255 << 24) | ((v & 255) << 16) | (v & 0xff00) | (v >> 16); });
      for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) pixels[row * columns + column] = words[regime(row, column)];
      c.putImageData(image, 0, 0);
    };
    const again = surface(canvas, (width) => Math.max(260, Math.min(width * 0.5, 460)), (c, width, height) => {
      if (painted !== look()) paint();
      plot = axes(c, width, height, [edges[0], edges[columns]], [rows, 0], "step", "dead rows, by freeze onset");
      c.imageSmoothingEnabled = true; c.imageSmoothingQuality = "high";
      c.drawImage(picture, plot.left, plot.top, plot.right - plot.left, plot.bottom - plot.top);
      if (chosen) {
        const x = plot.x((edges[chosen[1]] + edges[chosen[1] + 1]) / 2), y = plot.y(chosen[0] + 0.5);
        c.strokeStyle = look().ink; c.lineWidth = 1; c.beginPath();
        c.moveTo(plot.left, y); c.lineTo(plot.right, y); c.moveTo(x, plot.top); c.lineTo(x, plot.bottom); c.stroke();
      }
    });
    const choose = (next) => {
      chosen = next && [Math.min(Math.max(next[0], 0), rows - 1), Math.min(Math.max(next[1], 0), columns - 1)];
      if (!chosen) said.textContent = "";
      else {
        const [row, column] = chosen, first = edges[column] + 1, last = edges[column + 1];
        const when = first >= last ? `step ${whole(last)}` : `hottest in steps ${whole(first)} to ${whole(last)}`;
        said.textContent = [named(order[row]), `${when}: ${spec.names[regime(row, column)]}`, `last moved in step ${whole(onset[row])}`].join(" · ");
      }
      again();
    };
    pointer(canvas, (x, y) => {
      if (x < plot.left || x > plot.right || y < plot.top || y > plot.bottom) { choose(null); return; }
      const step = edges[0] + ((x - plot.left) / (plot.right - plot.left)) * (edges[columns] - edges[0]);
      let column = 0;
      while (column + 1 < columns && edges[column + 1] < step) column++;
      choose([Math.floor(((y - plot.top) / (plot.bottom - plot.top)) * rows), column]);
    }, () => choose(null));
    const move = (down, right) => () => choose(chosen ? [chosen[0] + down, chosen[1] + right] : [0, 0]);
    keys(canvas, { ArrowUp: move(-1, 0), ArrowDown: move(1, 0), ArrowLeft: move(0, -1), ArrowRight: move(0, 1),
      PageUp: move(-Math.ceil(rows / 16), 0), PageDown: move(Math.ceil(rows / 16), 0), Home: move(0, -columns), End: move(0, columns), Escape: () => choose(null) });
    const names = document.querySelectorAll("#key-motion canvas");
    const swatches = () => names.forEach((each, n) => swatch(each.getContext("2d"), look().regimes[n], 0, 0, each.width, each.height));
    swatches(); redraws.push(swatches);
  };

  const distance = () => {
    const canvas = byId("distance"), said = byId("said-distance"), many = distances.length, [first, end] = about.dead;
    let highest = 0, chosen = null, plot = null;
    for (const value of distances) highest = Math.max(highest, value);
    const again = surface(canvas, (width) => Math.max(280, Math.min(width * 0.42, 420)), (c, width, height) => {
      const { live, dead, ink, soft, line } = look();
      plot = axes(c, width, height, [0, many], [0, highest * 1.08 || 1], "compact id: live rows by frequency, then the dead ones", "‖W_i,T − W_i,0‖");
      for (let id = 0; id < many; id++) {
        const isDead = first <= id && id < end;
        c.fillStyle = isDead ? dead : live; c.globalAlpha = isDead ? 0.55 : 0.7;
        c.fillRect(plot.x(id) - 1, plot.y(distances[id]) - 1, 2, 2);
      }
      c.globalAlpha = 1; c.font = "600 12px system-ui, sans-serif"; c.textBaseline = "top"; c.fillStyle = soft;
      if (first < end) {
        c.strokeStyle = soft; c.setLineDash([4, 4]); c.beginPath(); c.moveTo(plot.x(first), plot.top); c.lineTo(plot.x(first), plot.bottom); c.stroke(); c.setLineDash([]);
        c.textAlign = "center"; c.fillText("live", (plot.left + plot.x(first)) / 2, plot.top + 2); c.fillText("dead", (plot.x(first) + plot.right) / 2, plot.top + 2);
      }
      if (chosen !== null) { c.strokeStyle = ink; c.lineWidth = 2; c.beginPath(); c.arc(plot.x(chosen), plot.y(distances[chosen]), 6, 0, 7); c.stroke(); }
    });
    const choose = (id) => {
      chosen = id === null ? null : Math.min(Math.max(id, 0), many - 1);
      said.textContent = chosen === null ? "" : `${named(chosen)} · distance from the start ${number(distances[chosen])}`;
      again();
    };
    pointer(canvas, (x, y) => {
      let best = null, nearest = 20 ** 2;
      for (let id = 0; id < many; id++) {
        const far = (plot.x(id) - x) ** 2 + (plot.y(distances[id]) - y) ** 2;
        if (far < nearest) { nearest = far; best = id; }
      }
      choose(best);
    }, () => choose(null));
    const move = (by) => () => choose(chosen === null ? 0 : chosen + by);
    keys(canvas, { ArrowLeft: move(-1), ArrowRight: move(1), PageUp: move(-Math.ceil(many / 32)), PageDown: move(Math.ceil(many / 32)),
      Home: () => choose(0), End: () => choose(many - 1), Escape: () => choose(null) });
  };

  if (about.cloud) cloud(about.cloud);
  if (about.motion) motion(about.motion);
  if (distances) distance();
  for (const [name, spec] of Object.entries(about.curves)) curves(name, spec);
})();
