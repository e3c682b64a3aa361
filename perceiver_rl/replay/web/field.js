// The field: entities, what they choose, and what the selected one attends to.

const GHOST_FRAMES = 10, TRAIL_FRAMES = 10;

class Field {
  constructor(canvas, recording) {
    this.canvas = canvas;
    this.recording = recording;
    this.spots = []; // where entities were drawn last
  }

  draw(state, colours) {
    const { context, width, height } = fitted(this.canvas);
    Object.assign(this, { context, width, height, state, colours, episode: state.episode });
    this.frame = Math.min(Math.floor(state.time), this.episode.steps);
    this.part = state.time - this.frame;
    this.step = this.frame < this.episode.steps ? this.frame : -1; // none chooses in the last frame
    this.fit();
    this.spots = this.recording.entities.map((entity) => this.spot(entity));
    this.drawGround();
    this.drawTrails();
    this.drawGhosts();
    const attention = this.weights();
    if (attention) this.drawHalos(attention);
    if (attention) this.drawLinks(attention);
    this.drawAttacks();
    for (const spot of this.spots) if (spot) this.drawEntity(spot);
    if (attention) this.drawShares(attention);
  }

  fit() {
    const { camera } = this.episode, now = camera[this.frame], next = camera[Math.min(this.frame + 1, this.episode.steps)];
    const between = (what) => now[what] + this.part * (next[what] - now[what]);
    const pad = Math.min(70, 0.12 * Math.min(this.width, this.height)), low = 26; // room for the legend
    this.scale = Math.min((this.width - 2 * pad) / between("wide"), (this.height - 2 * pad - low) / between("high"));
    this.left = this.width / 2 - this.scale * between("x");
    this.top = (this.height - low) / 2 + this.scale * between("y");
    this.radius = Math.min(20, Math.max(4.5, this.scale * this.spacing() * 0.36));
  }

  /** A distance to the nearest neighbour that three in four keep in the episode's first half. */
  spacing() {
    if (!this.episode.spacing) {
      const all = [];
      for (const frame of [0, this.episode.steps >> 2, this.episode.steps >> 1]) {
        const places = this.recording.entities.filter((each) => this.episode.present(each, frame)).map((each) => this.episode.place(each, frame));
        for (const [x, y] of places) {
          const nearest = Math.min(...places.map(([a, b]) => Math.hypot(a - x, b - y) || Infinity));
          if (nearest < Infinity) all.push(nearest);
        }
      }
      all.sort((a, b) => a - b);
      this.episode.spacing = all.length ? all[all.length >> 2] : 1;
    }
    return this.episode.spacing;
  }

  pixel([x, y]) { return [this.left + this.scale * x, this.top - this.scale * y]; }

  /** Where and how an entity is drawn now; null if it is absent. */
  spot(entity) {
    const { episode, frame, part } = this;
    if (!episode.present(entity, frame)) return null;
    let [x, y] = episode.place(entity, frame), fade = 1, health = episode.share(entity, frame, "health"), hit = 0;
    if (frame < episode.steps && part > 0) {
      if (episode.stays(entity, frame)) {
        const [nextX, nextY] = episode.place(entity, frame + 1);
        x += part * (nextX - x); y += part * (nextY - y);
        const next = episode.share(entity, frame + 1, "health");
        if (health !== null && next < health - 1e-4) { hit = Math.sin(Math.PI * part); health += part * (next - health); }
      } else if (!episode.present(entity, frame + 1)) fade = 1 - part;
    }
    const [left, top] = this.pixel([x, y]), { selected, view } = this.state;
    const actor = this.recording.actors.indexOf(selected);
    const seen = !view || actor < 0 || !episode.present(this.recording.entities[selected], frame) || episode.seen(actor, entity, frame);
    return { entity, x: left, y: top, fade, health, hit, seen, kind: this.recording.kinds.indexOf(episode.kind(entity, frame)) };
  }

  weights() {
    const { state, step, recording } = this, actor = recording.actors.indexOf(state.selected);
    if (!state.attention || actor < 0 || step < 0 || !this.spots[state.selected]) return null;
    const of = this.episode.attention(actor, step, state.latent);
    return { of, colour: state.latent < 0 ? this.colours.attention : this.colours.latent, most: Math.max(...of.subarray(0, recording.entities.length), 1e-6) };
  }

  drawGround() {
    const { context, colours, scale } = this, bounds = this.recording.head.scene.bounds;
    const steps = [0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
    const gap = steps.find((each) => each * scale >= 34) || 34 / scale;
    context.fillStyle = colours.line;
    const [westEnd, southEnd, eastEnd, northEnd] = bounds || [-Infinity, -Infinity, Infinity, Infinity];
    for (let i = Math.ceil(-this.left / scale / gap); i * gap * scale + this.left < this.width; i++) {
      for (let j = Math.ceil((this.top - this.height) / scale / gap); j * gap * scale < this.top; j++) {
        const x = i * gap, y = j * gap;
        if (x < westEnd || x > eastEnd || y < southEnd || y > northEnd) continue;
        const [left, top] = this.pixel([x, y]);
        context.fillRect(left - 1, top - 1, 2, 2);
      }
    }
    if (bounds) {
      const [left, top] = this.pixel([westEnd, northEnd]);
      context.strokeStyle = colours.line;
      context.lineWidth = 2;
      context.strokeRect(left, top, (eastEnd - westEnd) * scale, (northEnd - southEnd) * scale);
    }
    const rows = this.episode.box.rows;
    context.fillStyle = colours.muted;
    context.font = this.font(11.5);
    context.textAlign = "left";
    for (const name of rows) {
      const first = this.recording.entities.find((entity) => entity.type.name === name);
      const [, top] = this.pixel(this.episode.place(first, 0));
      context.fillText(name, 14, top - this.radius - 14);
    }
  }

  drawTrails() {
    const { context, episode, frame } = this;
    context.lineCap = "butt";
    for (const spot of this.spots) {
      if (!spot || !spot.entity.columns.position) continue;
      let [x, y] = [spot.x, spot.y];
      context.strokeStyle = this.colours[spot.entity.look.side];
      context.lineWidth = Math.max(1, this.radius * 0.22);
      for (let back = 0; back < TRAIL_FRAMES && frame - back >= 0 && (back === 0 || episode.stays(spot.entity, frame - back)); back++) {
        const [left, top] = this.pixel(episode.place(spot.entity, frame - back));
        context.globalAlpha = 0.26 * (1 - back / TRAIL_FRAMES) * (spot.seen ? 1 : 0.3);
        context.beginPath();
        context.moveTo(x, y);
        context.lineTo(left, top);
        context.stroke();
        [x, y] = [left, top];
      }
    }
    context.globalAlpha = 1;
  }

  /** A cross where an entity was last. */
  drawGhosts() {
    const { context, episode, state, radius } = this;
    for (const { entity, frame } of episode.losses) {
      const age = state.time - frame;
      if (age < 0 || age > GHOST_FRAMES || this.spots[entity.index]) continue;
      const [x, y] = this.pixel(episode.place(entity, frame - 1)), arm = radius * 0.5;
      context.globalAlpha = 0.75 * (1 - age / GHOST_FRAMES);
      context.strokeStyle = this.colours[entity.look.side];
      context.lineWidth = Math.max(1.5, radius * 0.16);
      context.beginPath();
      context.moveTo(x - arm, y - arm); context.lineTo(x + arm, y + arm);
      context.moveTo(x + arm, y - arm); context.lineTo(x - arm, y + arm);
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  /** From whoever chose a targeted verb to its target, with a pulse that travels while time runs. */
  drawAttacks() {
    if (this.step < 0) return;
    const { context, recording } = this, options = this.episode.row("options", this.step);
    recording.actors.forEach((slot, actor) => {
      const from = this.spots[slot], target = recording.head.targets[options[actor]];
      if (!from || target < 0 || !this.spots[target] || target === slot) return;
      const to = this.spots[target], length = Math.hypot(to.x - from.x, to.y - from.y) || 1;
      const [ux, uy] = [(to.x - from.x) / length, (to.y - from.y) / length];
      const start = Math.min(this.radius * 1.35, length * 0.3), stop = Math.max(length - this.radius * 1.35, length * 0.7);
      const at = (distance) => [from.x + ux * distance, from.y + uy * distance];
      const colour = this.colours[from.entity.look.side];
      const strength = this.state.selected < 0 || this.state.selected === slot || !this.state.attention ? 1 : 0.75;
      context.lineCap = "round";
      context.strokeStyle = colour;
      context.globalAlpha = 0.7 * strength;
      context.lineWidth = Math.max(1.2, this.radius * 0.12);
      context.beginPath();
      context.moveTo(...at(start)); context.lineTo(...at(stop));
      context.stroke();
      const head = Math.max(4, this.radius * 0.42), [x, y] = at(stop);
      context.globalAlpha = 0.95 * strength;
      context.fillStyle = colour;
      context.beginPath();
      context.moveTo(x + ux * head * 0.5, y + uy * head * 0.5);
      context.lineTo(x - ux * head - uy * head * 0.55, y - uy * head + ux * head * 0.55);
      context.lineTo(x - ux * head + uy * head * 0.55, y - uy * head - ux * head * 0.55);
      context.fill();
      if (this.part > 0) {
        const place = start + (stop - start) * this.part;
        context.lineWidth = Math.max(2, this.radius * 0.24);
        context.beginPath();
        context.moveTo(...at(Math.max(start, place - 0.2 * length))); context.lineTo(...at(place));
        context.stroke();
      }
    });
    context.globalAlpha = 1;
  }

  drawHalos({ of, colour, most }) {
    const { context } = this;
    for (const spot of this.spots) {
      if (!spot || of[spot.entity.index] < 0.004) continue;
      const weight = of[spot.entity.index], size = this.radius * (1.5 + 2.1 * Math.sqrt(weight / Math.max(most, 0.2)));
      const glow = context.createRadialGradient(spot.x, spot.y, this.radius * 0.6, spot.x, spot.y, size);
      glow.addColorStop(0, colour);
      glow.addColorStop(1, `${colour}00`);
      context.globalAlpha = 0.1 + 0.5 * (weight / most);
      context.fillStyle = glow;
      context.beginPath();
      context.arc(spot.x, spot.y, size, 0, 2 * Math.PI);
      context.fill();
    }
    context.globalAlpha = 1;
  }

  /** Arcs from the selected unit to what it attends to, wide where it attends much. */
  drawLinks({ of, colour, most }) {
    const { context } = this, from = this.spots[this.state.selected];
    context.lineCap = "round";
    context.strokeStyle = colour;
    for (const to of this.spots) {
      if (!to || to === from || of[to.entity.index] < 0.01) continue;
      const weight = of[to.entity.index], bend = 0.16, length = Math.hypot(to.x - from.x, to.y - from.y) || 1;
      const middle = [(from.x + to.x) / 2 - bend * (to.y - from.y), (from.y + to.y) / 2 + bend * (to.x - from.x)];
      const [ux, uy] = [(to.x - middle[0]) / length, (to.y - middle[1]) / length];
      context.globalAlpha = 0.15 + 0.65 * (weight / most);
      context.lineWidth = 0.8 + Math.min(7, this.radius * 0.6) * (weight / Math.max(most, 0.2));
      context.beginPath();
      context.moveTo(from.x, from.y);
      context.quadraticCurveTo(...middle, to.x - ux * this.radius, to.y - uy * this.radius);
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  /** The largest weights in figures. */
  drawShares({ of, colour }) {
    const { context } = this;
    const largest = this.spots.filter((spot) => spot && of[spot.entity.index] >= 0.05).sort((a, b) => of[b.entity.index] - of[a.entity.index]);
    context.font = this.font(11.5, 600);
    context.textAlign = "center";
    context.textBaseline = "middle";
    const placed = [];
    for (const spot of largest.slice(0, 5)) {
      const text = `${Math.round(100 * of[spot.entity.index])} %`, [x, y] = this.freePlace(spot, placed);
      placed.push([x, y]);
      context.lineWidth = 4;
      context.lineJoin = "round";
      context.strokeStyle = this.colours.field;
      context.strokeText(text, x, y);
      context.fillStyle = colour;
      context.fillText(text, x, y);
    }
    context.textBaseline = "alphabetic";
  }

  /** Beside an entity, on the far side of the unit that looks if nothing stands there, else where least does. */
  freePlace(spot, placed) {
    const from = this.spots[this.state.selected], away = this.radius * 1.42 + 16;
    const first = spot === from ? -Math.PI / 2 : Math.atan2(spot.y - from.y, spot.x - from.x);
    let best = null, least = Infinity;
    for (const turn of [0, 1, -1, 2, -2, 3, -3, 4]) {
      const angle = first + (turn * Math.PI) / 4, x = spot.x + Math.cos(angle) * (away + 4), y = spot.y + Math.sin(angle) * away;
      const near = (left, top, room) => Math.max(0, room - Math.hypot(left - x, (top - y) * 1.4));
      let crowd = x < 20 || x > this.width - 20 || y < 10 || y > this.height - 36 ? 100 : 0;
      for (const other of this.spots) if (other && other !== spot) crowd += near(other.x, other.y, this.radius * 1.5 + 16);
      for (const [left, top] of placed) crowd += near(left, top, 34);
      if (crowd < least) { best = [x, y]; least = crowd; }
      if (crowd === 0) break;
    }
    return best;
  }

  drawEntity(spot) {
    const { context, colours, radius } = this, { entity, x, y } = spot, colour = colours[entity.look.side];
    const size = radius * (0.5 + 0.5 * spot.fade);
    context.globalAlpha = spot.fade * (spot.seen ? 1 : 0.28);
    outline(context, spot.kind, x, y, size);
    context.fillStyle = colours.field;
    context.fill();
    context.fillStyle = colour;
    context.fill();
    const cooldown = this.episode.share(entity, this.frame, "cooldown");
    if (spot.health !== null) this.drawRing(x, y, size * 1.42, spot.health, colour, colours.line);
    if (cooldown) this.drawRing(x, y, size * 1.42 + Math.max(3, radius * 0.2), cooldown, colours.muted);
    if (spot.hit) {
      outline(context, spot.kind, x, y, size);
      context.globalAlpha *= 0.75 * spot.hit;
      context.fillStyle = colours.text;
      context.fill();
      context.globalAlpha = spot.fade * (spot.seen ? 1 : 0.28);
    }
    if (radius >= 9 && entity.type.max_count > 1) {
      context.fillStyle = colours.ink;
      context.font = this.font(Math.min(12, radius * 0.85), 650);
      context.textAlign = "center";
      context.textBaseline = "middle";
      context.fillText(entity.slot, x, y + 0.5);
      context.textBaseline = "alphabetic";
    }
    if (this.state.selected === entity.index || this.state.hovered === entity.index) {
      context.globalAlpha = this.state.selected === entity.index ? 1 : 0.5;
      context.strokeStyle = colours.text;
      context.lineWidth = 1.6;
      context.setLineDash([4, 4]);
      context.beginPath();
      context.arc(x, y, radius * 1.42 + Math.max(6, radius * 0.45), 0, 2 * Math.PI);
      context.stroke();
      context.setLineDash([]);
    }
    context.globalAlpha = 1;
  }

  /** A share of a circle, from the top. */
  drawRing(x, y, radius, share, colour, rest = null) {
    const { context } = this;
    context.lineCap = "butt";
    context.lineWidth = rest ? Math.max(1.6, this.radius * 0.17) : Math.max(1, this.radius * 0.1);
    if (rest) {
      context.strokeStyle = rest;
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.stroke();
    }
    context.strokeStyle = colour;
    context.beginPath();
    context.arc(x, y, radius, -Math.PI / 2, -Math.PI / 2 + 2 * Math.PI * share);
    context.stroke();
  }

  font(size, weight = 500) { return `${weight} ${size}px ui-sans-serif, system-ui, -apple-system, "Segoe UI", Arial, sans-serif`; }

  /** The entity at a point of the page, or -1. */
  at(x, y) {
    let best = -1, nearest = Math.max(16, this.radius * 1.6);
    for (const spot of this.spots) {
      const distance = spot ? Math.hypot(spot.x - x, spot.y - y) : Infinity;
      if (distance < nearest) [best, nearest] = [spot.entity.index, distance];
    }
    return best;
  }
}
