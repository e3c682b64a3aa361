// The side panel: the selected unit, its options with their probabilities, and what it attends to.
// All names come from an environment: they are only ever set as text.

const MAX_BARS = 6;
const byId = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(share >= 0.0005 && share < 0.0995 ? 1 : 0)} %`;
const plain = (name) => name.replace(/^is_/, "").replaceAll("_", " ");

/** One bar of a list. */
function bar(name, share, { colour, dot = null, chosen = false, most = 1 }) {
  const item = document.createElement("li");
  item.style.setProperty("--share", `${Math.min(100, (100 * share) / most)}%`);
  item.style.setProperty("--colour", `var(--${colour})`);
  const mark = document.createElement("span"), label = document.createElement("span"), figure = document.createElement("span");
  mark.className = "dot"; label.className = "name"; figure.className = "share";
  if (dot) mark.style.setProperty("--dot", `var(--${dot})`);
  label.textContent = name;
  label.title = name;
  figure.textContent = percent(share);
  if (chosen) { item.className = "chosen"; item.setAttribute("aria-current", "true"); }
  item.append(mark, label, figure);
  return item;
}

function note(words) {
  const item = document.createElement("li");
  item.className = "note";
  item.textContent = words;
  return item;
}

function drawPanel(state, recording, colours, onLatent) {
  const { episode, selected } = state, frame = Math.min(Math.floor(state.time), episode.steps);
  const entity = recording.entities[selected], actor = recording.actors.indexOf(selected);
  const there = entity && episode.present(entity, frame);
  byId("unit-name").textContent = entity ? entity.name : "Nothing selected";
  byId("unit-kind").textContent = !entity ? "Click a unit, or press ↓" : !there ? "dead, or out of sight" : entity.columns.kinds.length ? plain(episode.kind(entity, frame)) : entity.look.side;
  drawGauges(episode, entity, frame, there);
  drawIcon(byId("portrait"), there ? recording.kinds.indexOf(episode.kind(entity, frame)) : 0, entity && there ? colours[entity.look.side] : colours.line, 14);
  const deciding = there && actor >= 0 && frame < episode.steps;
  const why = !entity ? "Select a unit." : actor < 0 ? "This one does not act." : !there ? "It is not there." : "The episode is over.";
  drawOptions(recording, episode, frame, deciding ? actor : -1, why);
  drawAttention(state, recording, frame, deciding ? actor : -1, why, onLatent);
}

function drawGauges(episode, entity, frame, there) {
  const rows = [];
  for (const what of there ? ["health", "cooldown"] : []) {
    const share = episode.share(entity, frame, what);
    if (share === null) continue;
    const label = document.createElement("span"), track = document.createElement("i"), figure = document.createElement("span");
    label.textContent = what;
    track.style.setProperty("--share", `${100 * share}%`);
    track.style.setProperty("--colour", what === "health" ? `var(--${entity.look.side})` : "var(--muted)");
    figure.textContent = percent(share);
    rows.push(label, track, figure);
  }
  byId("gauges").replaceChildren(...rows);
}

function drawOptions(recording, episode, step, actor, why) {
  const list = byId("options");
  byId("entropy").textContent = "";
  if (actor < 0) { list.replaceChildren(note(why)); return; }
  const legal = episode.row("legal", step, actor), shares = episode.row("probabilities", step, actor);
  const chosen = episode.row("options", step)[actor];
  let entropy = 0;
  const bars = [];
  legal.forEach((is, option) => {
    if (!is) return;
    if (shares[option] > 0) entropy -= shares[option] * Math.log(shares[option]);
    const target = recording.head.targets[option];
    bars.push(bar(recording.head.options[option], shares[option], { colour: "own", chosen: option === chosen, dot: target < 0 ? null : recording.entities[target].look.side }));
  });
  byId("entropy").textContent = `${bars.length} legal, entropy ${entropy.toFixed(2)} nats`;
  list.replaceChildren(...bars);
  const mark = list.querySelector(".chosen"); // in sight, and only this list moves for it
  if (mark) list.scrollTop = Math.max(0, mark.offsetTop - list.offsetTop + mark.offsetHeight - list.clientHeight);
}

function drawAttention(state, recording, step, actor, why, onLatent) {
  const { episode, latent } = state, latents = byId("latents"), list = byId("attention");
  if (actor < 0) { latents.replaceChildren(); list.replaceChildren(note(why)); byId("attention-of").textContent = ""; return; }
  const asked = episode.row("actors_to_memory", step, actor), of = episode.attention(actor, step, latent);
  if (episode.arrays.latents_to_tokens) {
    byId("attention-of").textContent = latent < 0 ? "unit → latents → entities" : `latent ${latent} → entities`;
    const most = Math.max(...asked);
    if (latents.children.length !== asked.length) {
      latents.replaceChildren(...Array.from(asked, (_, number) => {
        const button = document.createElement("button");
        button.textContent = number;
        button.addEventListener("click", () => onLatent(number));
        return button;
      }));
    }
    asked.forEach((share, number) => {
      const button = latents.children[number];
      button.style.setProperty("--share", `${(85 * share) / most}%`);
      button.title = `latent ${number}: ${percent(share)} of the unit's attention`;
      button.setAttribute("aria-pressed", number === latent);
    });
  } else byId("attention-of").textContent = "unit → entities";
  const largest = Array.from(of, (share, token) => [share, token]).filter(([share]) => share >= 0.001).sort((a, b) => b[0] - a[0]);
  const bars = largest.slice(0, MAX_BARS).map(([share, token]) =>
    bar(recording.tokenName(token), share, {
      colour: latent < 0 ? "attention" : "latent",
      most: Math.max(largest[0][0], 0.3),
      dot: token < recording.entities.length ? recording.entities[token].look.side : "muted",
    }));
  if (largest.length > MAX_BARS) {
    const rest = largest.slice(MAX_BARS).reduce((sum, [share]) => sum + share, 0);
    bars.push(note(`${largest.length - MAX_BARS} more with ${percent(rest)}`));
  }
  list.replaceChildren(...(bars.length ? bars : [note("It reads nothing.")]));
}
