// State, time, mouse and keyboard.

const SPEEDS = [1, 2, 4, 6, 8, 12, 16, 24, 40];
const PALETTE = ["ground", "panel", "field", "line", "text", "muted", "own", "other", "neutral", "attention", "latent", "ink"];
const PLAY = "M6 3.5v13L17 10z", PAUSE = "M5 4h3.5v12H5zM11.5 4H15v12h-3.5z";

function start(recording) {
  const field = new Field(byId("field"), recording), chart = new Chart(byId("chart"));
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  const wanted = new URLSearchParams(location.hash.slice(1));
  const number = (name, otherwise, most) => Math.min(most, Math.max(0, Number.parseInt(wanted.get(name) ?? otherwise, 10) || 0));
  const state = {
    episode: recording.episodes[number("episode", 0, recording.episodes.length - 1)],
    time: 0, playing: false, speed: 8, latent: -1, hovered: -1, attention: true, view: true,
    selected: recording.actors[number("unit", 0, recording.actors.length - 1)],
  };
  state.time = number("step", 0, state.episode.steps);
  if (wanted.has("latent") && state.episode.arrays.latents_to_tokens) state.latent = number("latent", 0, state.episode.shapes.latents_to_tokens[2] - 1);
  const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
  let colours, pending = false, before = 0;

  function setTheme(theme) {
    document.documentElement.dataset.theme = theme;
    const style = getComputedStyle(document.documentElement);
    colours = Object.fromEntries(PALETTE.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    drawLegend();
    redraw();
  }

  function drawLegend() {
    const entries = [], first = state.episode, shown = new Set();
    const entry = (kind, colour, words) => {
      const span = document.createElement("span"), canvas = document.createElement("canvas"), text = document.createElement("span");
      text.textContent = words;
      span.append(canvas, text);
      entries.push([span, canvas, kind, colour]);
    };
    for (const entity of recording.entities) {
      for (let frame = 0; frame <= first.steps; frame++) {
        if (!first.present(entity, frame)) continue;
        const kind = first.kind(entity, frame), words = entity.columns.kinds.length ? `${entity.type.name} ${plain(kind)}` : entity.type.name;
        if (!shown.has(words)) entry(recording.kinds.indexOf(kind), colours[entity.look.side], words);
        shown.add(words);
        break;
      }
    }
    byId("kinds").replaceChildren(...entries.map(([span]) => span));
    for (const [, canvas, kind, colour] of entries) drawIcon(canvas, kind, colour, 5.5);
    for (const mark of byId("marks").children) {
      const { name } = mark.dataset;
      mark.hidden = name === "target" ? recording.head.targets.every((target) => target < 0) : name !== "attention" && recording.entities.every((entity) => entity.columns[name] < 0);
      if (!mark.hidden) drawMark(mark.firstElementChild, name, colours);
    }
  }

  function redraw() {
    if (!pending) { pending = true; requestAnimationFrame(draw); }
  }

  function draw(now) {
    pending = false;
    if (state.playing) {
      // A frame's own time may lie a little before that of the key that began to play.
      state.time = Math.min(state.episode.steps, state.time + (state.speed * Math.min(250, Math.max(0, now - before))) / 1000);
      before = now;
      if (state.time >= state.episode.steps) state.playing = false;
      else redraw();
    }
    const shown = calm && state.playing ? { ...state, time: Math.floor(state.time) } : state;
    field.draw(shown, colours);
    chart.draw(shown, colours);
    drawPanel(shown, recording, colours, (latent) => { state.latent = state.latent === latent ? -1 : latent; redraw(); });
    drawReadout();
  }

  function drawReadout() {
    const { episode } = state, frame = Math.min(Math.floor(state.time), episode.steps), over = frame === episode.steps;
    const readout = (id, words, figure) => {
      const strong = document.createElement("b");
      strong.textContent = figure;
      byId(id).replaceChildren(`${words} `, strong);
    };
    readout("step", "step", `${frame} / ${episode.steps}`);
    readout("value", "value", over ? "–" : episode.arrays.value[frame].toFixed(2));
    readout("reward", "return", episode.returns[frame].toFixed(2));
    byId("speed").textContent = `${state.speed} steps/s`;
    byId("play-shape").setAttribute("d", state.playing ? PAUSE : PLAY);
    byId("play").setAttribute("aria-label", state.playing ? "Pause (space)" : "Play (space)");
    byId("result").textContent = !over ? "" : episode.won === null ? "over" : episode.won ? "won" : "lost";
    byId("result").style.color = `var(--${episode.won === null ? "muted" : episode.won ? "own" : "other"})`;
    const slider = byId("chart");
    slider.setAttribute("aria-valuemax", episode.steps);
    slider.setAttribute("aria-valuenow", frame);
    slider.setAttribute("aria-valuetext", `step ${frame} of ${episode.steps}`);
    byId("show-attention").setAttribute("aria-pressed", state.attention);
    byId("show-view").setAttribute("aria-pressed", state.view);
    [...byId("episodes").children].forEach((button, i) => button.setAttribute("aria-pressed", recording.episodes[i] === episode));
  }

  function goTo(time) { state.playing = false; state.time = Math.min(state.episode.steps, Math.max(0, time)); redraw(); }
  function move(steps) { goTo((steps < 0 ? Math.ceil(state.time) : Math.floor(state.time)) + steps); }
  function play() {
    if (!state.playing && state.time >= state.episode.steps) state.time = 0;
    state.playing = !state.playing;
    before = performance.now();
    redraw();
  }
  function faster(by) {
    const at = SPEEDS.indexOf(state.speed) + by;
    state.speed = SPEEDS[Math.min(SPEEDS.length - 1, Math.max(0, at))];
    redraw();
  }
  function select(entity) {
    if (entity < 0 && state.latent >= 0) state.latent = -1;
    else state.selected = entity;
    redraw();
  }
  /** The next actor that is there. */
  function nextUnit(by) {
    const { actors, entities } = recording, frame = Math.min(Math.floor(state.time), state.episode.steps);
    let at = actors.indexOf(state.selected);
    if (at < 0 && by < 0) at = 0;
    for (let tried = 0; tried < actors.length; tried++) {
      at = (at + by + actors.length) % actors.length;
      if (state.episode.present(entities[actors[at]], frame)) break;
    }
    state.selected = actors[at];
    redraw();
  }
  function nextLatent(by) {
    if (!state.episode.arrays.latents_to_tokens) return;
    const count = state.episode.shapes.latents_to_tokens[2] + 1;
    state.latent = ((state.latent + 1 + by + count) % count) - 1;
    redraw();
  }
  function showEpisode(episode) {
    Object.assign(state, { episode, time: 0, playing: false });
    drawLegend();
    redraw();
  }
  function nextEpisode() { showEpisode(recording.episodes[(recording.episodes.indexOf(state.episode) + 1) % recording.episodes.length]); }
  function toggle(name) { state[name] = !state[name]; redraw(); }
  function toggleTheme() { setTheme(document.documentElement.dataset.theme === "light" ? "dark" : "light"); }
  const help = byId("help");

  const keys = {
    " ": play, ArrowLeft: (event) => move(event.shiftKey ? -10 : -1), ArrowRight: (event) => move(event.shiftKey ? 10 : 1),
    Home: () => goTo(0), End: () => goTo(state.episode.steps), "+": () => faster(1), "=": () => faster(1), "-": () => faster(-1),
    ArrowUp: () => nextUnit(-1), ArrowDown: () => nextUnit(1), l: () => nextLatent(1), L: () => nextLatent(-1),
    a: () => toggle("attention"), v: () => toggle("view"), e: nextEpisode, t: toggleTheme, "?": () => help.showModal(), Escape: () => select(-1),
  };
  document.addEventListener("keydown", (event) => {
    if (help.open || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && event.target.closest("button")) return; // a button that was reached by Tab does its own
    const act = keys[event.key] || (event.key === "L" ? null : keys[event.key.toLowerCase()]);
    if (!act) return;
    event.preventDefault();
    act(event);
  });
  // A button that was clicked does not keep the space bar.
  document.addEventListener("click", (event) => { if (event.detail && event.target.closest("button")) document.activeElement.blur(); });

  for (const [id, act] of Object.entries({
    play, back: () => move(-1), forward: () => move(1), slower: () => faster(-1), faster: () => faster(1), theme: toggleTheme,
    "help-button": () => help.showModal(), "previous-unit": () => nextUnit(-1), "next-unit": () => nextUnit(1),
    "show-attention": () => toggle("attention"), "show-view": () => toggle("view"),
  })) byId(id).addEventListener("click", act);
  recording.episodes.forEach((episode, i) => {
    const button = document.createElement("button");
    button.textContent = `${episode.name.replace("episode ", "")}${episode.won === null ? "" : episode.won ? " won" : " lost"}`;
    button.title = `${episode.name}, ${episode.steps} steps`;
    button.addEventListener("click", () => showEpisode(episode));
    byId("episodes").append(button);
  });

  const canvas = byId("field"), tip = byId("tip");
  canvas.addEventListener("click", (event) => select(field.at(event.offsetX, event.offsetY)));
  canvas.addEventListener("pointermove", (event) => {
    const at = event.pointerType === "touch" ? -1 : field.at(event.offsetX, event.offsetY);
    tip.hidden = at < 0;
    if (at >= 0) {
      tip.textContent = describe(recording.entities[at]);
      tip.style.left = `${Math.min(event.offsetX, canvas.clientWidth - 170)}px`;
      tip.style.top = `${Math.min(Math.max(event.offsetY, 80), canvas.clientHeight - 80)}px`;
    }
    if (at !== state.hovered) { state.hovered = at; redraw(); }
  });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; state.hovered = -1; redraw(); });
  /** Name and features, zeros left out. */
  function describe(entity) {
    const features = state.episode.features(entity, Math.min(Math.floor(state.time), state.episode.steps));
    const lines = entity.type.features.map(({ name }, i) => [name, features[i]]).filter(([, value]) => value !== 0);
    return [entity.name, ...lines.map(([name, value]) => `${plain(name)}  ${+value.toFixed(2)}`)].join("\n");
  }

  const slider = byId("chart");
  slider.addEventListener("pointerdown", (event) => { slider.setPointerCapture(event.pointerId); goTo(chart.time(event.offsetX)); });
  slider.addEventListener("pointermove", (event) => { if (slider.hasPointerCapture(event.pointerId)) goTo(chart.time(event.offsetX)); });

  const { head } = recording;
  byId("env").textContent = head.env;
  byId("about").textContent = [head.policy, head.control, head.mode, `seed ${head.seed}`].join(" · ");
  byId("show-view").hidden = !recording.decentralized;
  setTheme(["light", "dark"].includes(wanted.get("theme")) ? wanted.get("theme") : dark ? "dark" : "light");
  new ResizeObserver(redraw).observe(document.body);
  document.documentElement.dataset.ready = "true";
}

loadRecording().then(start).catch((error) => {
  byId("failure").textContent = `This replay cannot be shown: ${error.message}`;
  byId("failure").hidden = false;
  throw error;
});
