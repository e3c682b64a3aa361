"use strict";
// The recording: names from the head, numbers from the arrays, and questions about both.

/** Half-precision numbers as a Float32Array. */
function fromHalf(bits) {
  const out = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const sign = bits[i] & 0x8000 ? -1 : 1, exponent = (bits[i] >> 10) & 31, fraction = bits[i] & 1023;
    if (exponent === 0) out[i] = sign * fraction * 2 ** -24;
    else if (exponent === 31) out[i] = fraction ? NaN : sign * Infinity;
    else out[i] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return out;
}

/** Where entities are listed anew in each step: a longer move than this share of the field is another entity in the slot. */
const LEAP = 0.12;

const VIEWS = {
  bool: (buffer, at, count) => new Uint8Array(buffer, at, count),
  int16: (buffer, at, count) => new Int16Array(buffer, at, count),
  float16: (buffer, at, count) => fromHalf(new Uint16Array(buffer, at, count)),
  float32: (buffer, at, count) => new Float32Array(buffer, at, count),
};

async function loadRecording() {
  const head = JSON.parse(document.getElementById("head").textContent);
  const bytes = Uint8Array.from(atob(document.getElementById("arrays").textContent), (each) => each.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Recording(head, await new Response(stream).arrayBuffer());
}

class Recording {
  constructor(head, buffer) {
    this.head = head;
    this.decentralized = head.schema.control === "decentralized";
    this.actors = head.actor_slots;
    this.entities = [];
    for (const type of head.schema.entity_types) {
      const look = head.scene.looks[type.name] || { side: "neutral", position: null, health: null, cooldown: null, kinds: [] };
      const column = (name) => type.features.findIndex((feature) => feature.name === name);
      const columns = {
        position: Array.isArray(look.position) ? look.position.map(column) : null,
        health: look.health === null ? -1 : column(look.health),
        cooldown: look.cooldown === null ? -1 : column(look.cooldown),
        kinds: look.kinds.map(column),
      };
      for (let slot = 0; slot < type.max_count; slot++) {
        this.entities.push({ index: this.entities.length, type, look, columns, slot, name: type.max_count > 1 ? `${type.name} ${slot}` : type.name });
      }
    }
    this.kinds = [];
    for (const type of head.schema.entity_types) {
      const look = head.scene.looks[type.name];
      const names = look && look.kinds.length ? look.kinds : [type.name];
      for (const name of names) if (!this.kinds.includes(name)) this.kinds.push(name);
    }
    this.episodes = head.episodes.map((episode) => new Episode(this, episode, buffer));
  }

  tokenName(token) { return token < this.entities.length ? this.entities[token].name : "globals"; }
}

class Episode {
  constructor(recording, head, buffer) {
    this.recording = recording;
    this.name = head.name;
    this.won = head.won;
    this.arrays = {};
    this.shapes = {};
    for (const [name, place] of Object.entries(head.arrays)) {
      const count = place.shape.reduce((product, size) => product * size, 1);
      this.arrays[name] = VIEWS[place.dtype](buffer, place.at, count);
      this.shapes[name] = place.shape;
    }
    this.steps = this.shapes.reward[0];
    this.returns = new Float32Array(this.steps + 1);
    for (let step = 0; step < this.steps; step++) this.returns[step + 1] = this.returns[step] + this.arrays.reward[step];
    this.box = this.findBox();
    this.camera = this.findCamera();
    this.losses = this.findLosses();
  }

  /** The last axis of an array at the given indices of the others. */
  row(name, ...indices) {
    const shape = this.shapes[name], width = shape[shape.length - 1];
    let at = 0;
    for (let axis = 0; axis < shape.length - 1; axis++) at = at * shape[axis] + indices[axis];
    return this.arrays[name].subarray(at * width, (at + 1) * width);
  }

  present(entity, frame) { return this.row("entity_mask", frame)[entity.index] === 1; }

  features(entity, frame) { return this.row(`features/${entity.type.name}`, frame, entity.slot); }

  /** A feature as a share of its declared range, 0 to 1; null if the scene names none. */
  share(entity, frame, what) {
    const column = entity.columns[what];
    if (column < 0) return null;
    const { low, high } = entity.type.features[column];
    return Math.min(1, Math.max(0, (this.features(entity, frame)[column] - low) / (high - low)));
  }

  kind(entity, frame) {
    const { kinds } = entity.columns;
    if (!kinds.length) return entity.type.name;
    const features = this.features(entity, frame);
    let best = 0;
    for (let i = 1; i < kinds.length; i++) if (features[kinds[i]] > features[kinds[best]]) best = i;
    return entity.look.kinds[best];
  }

  /** Where an entity stands: told by its features, at the origin, or in a row of its type below everything else. */
  place(entity, frame) {
    if (entity.columns.position) {
      const features = this.features(entity, frame);
      return [features[entity.columns.position[0]], features[entity.columns.position[1]]];
    }
    if (entity.look.position === "origin") return [0, 0];
    const { west, east, south, rows, gap } = this.box, count = Math.max(4, entity.type.max_count);
    return [west + ((entity.slot + 0.5) * (east - west)) / count, south + gap * (rows.length - rows.indexOf(entity.type.name) - 0.5)];
  }

  /** Whether a slot holds the same entity in the next frame, as far as its kind and a leap tell: lists may be sorted anew. */
  stays(entity, frame) {
    if (frame + 1 > this.steps || !this.present(entity, frame) || !this.present(entity, frame + 1)) return false;
    if (!this.recording.head.scene.sorted_anew) return true;
    const [x, y] = this.place(entity, frame), [nextX, nextY] = this.place(entity, frame + 1), { west, east, south, north } = this.box;
    return Math.hypot(nextX - x, nextY - y) <= LEAP * Math.max(east - west, north - south) && this.kind(entity, frame) === this.kind(entity, frame + 1);
  }

  seen(actor, entity, frame) {
    return !this.arrays.visibility || this.row("visibility", frame, actor)[entity.index] === 1;
  }

  /** What an actor's query attends to by way of all latents, or what one latent attends to. */
  attention(actor, step, latent) {
    const asked = this.row("actors_to_memory", step, actor);
    if (!this.arrays.latents_to_tokens) return asked;
    const reader = this.shapes.latents_to_tokens[1] > 1 ? actor : 0;
    if (latent >= 0) return this.row("latents_to_tokens", step, reader, latent);
    const out = new Float32Array(this.shapes.latents_to_tokens[3]);
    for (let l = 0; l < asked.length; l++) {
      const read = this.row("latents_to_tokens", step, reader, l);
      for (let token = 0; token < out.length; token++) out[token] += asked[l] * read[token];
    }
    return out;
  }

  /** The part of the world that is ever used, and what rows stand below it. */
  findBox() {
    const box = this.extent(0, this.steps) || { west: 0, east: 8, south: 0, north: 0 };
    box.rows = [];
    for (const entity of this.recording.entities) {
      if (entity.look.position === null && !box.rows.includes(entity.type.name)) box.rows.push(entity.type.name);
    }
    const missing = (0.5 * (box.north - box.south) - (box.east - box.west)) / 2 + 1e-3; // not too narrow for rows
    if (box.rows.length && missing > 0) { box.west -= missing; box.east += missing; }
    box.gap = (box.east - box.west) / 7;
    box.south -= box.gap * box.rows.length;
    return box;
  }

  /** What holds all that stands anywhere in some frames; null if nothing does. */
  extent(first, last) {
    const box = { west: Infinity, east: -Infinity, south: Infinity, north: -Infinity };
    for (let frame = Math.max(0, first); frame <= Math.min(this.steps, last); frame++) {
      for (const entity of this.recording.entities) {
        if (entity.look.position === null || !this.present(entity, frame)) continue;
        const [x, y] = this.place(entity, frame);
        box.west = Math.min(box.west, x); box.east = Math.max(box.east, x);
        box.south = Math.min(box.south, y); box.north = Math.max(box.north, y);
      }
    }
    return box.west === Infinity ? null : box;
  }

  /** For each frame what part of the world is shown: follows the entities, slowly; all of it where there are rows. */
  findCamera() {
    const whole = this.box, least = 0.35 * Math.max(whole.east - whole.west, whole.north - whole.south, 1e-3);
    const raw = [];
    for (let frame = 0; frame <= this.steps; frame++) {
      const box = (whole.rows.length ? null : this.extent(frame - 5, frame + 8)) || (frame && !whole.rows.length ? raw[frame - 1] : whole);
      raw.push(box);
    }
    const reach = 5; // no more than each looks ahead and back, so that nothing that is there is left out
    return raw.map((_, frame) => {
      const near = raw.slice(Math.max(0, frame - reach), frame + reach + 1);
      const mean = (side) => near.reduce((sum, box) => sum + box[side], 0) / near.length;
      const [west, east, south, north] = ["west", "east", "south", "north"].map(mean);
      return { x: (west + east) / 2, y: (south + north) / 2, wide: Math.max(east - west, least), high: Math.max(north - south, least) };
    });
  }

  /** For each entity the frames in which it is gone for the first time after it was there. */
  findLosses() {
    const losses = [];
    for (const entity of this.recording.entities) {
      for (let frame = 1; frame <= this.steps; frame++) {
        if (this.present(entity, frame - 1) && !this.present(entity, frame)) losses.push({ entity, frame });
      }
    }
    return losses;
  }
}
