// The value over time: a line with rewards below it and losses above, and a handle to move in time.

class Chart {
  constructor(canvas) { this.canvas = canvas; }

  draw(state, colours) {
    const { context, width, height } = fitted(this.canvas), { episode, time } = state;
    const value = episode.arrays.value, reward = episode.arrays.reward;
    Object.assign(this, { width, left: 40, right: 12, steps: episode.steps });
    const top = 14, bottom = height - 16;
    let low = Math.min(0, ...value), high = Math.max(0, ...value);
    if (high - low < 1e-6) high = low + 1;
    if (reward.some((each) => each < 0)) low = Math.min(low, -0.2 * (high - low)); // room for bars
    const y = (number) => bottom - ((number - low) / (high - low)) * (bottom - top);
    context.font = `500 11px ui-sans-serif, system-ui, sans-serif`;
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.lineWidth = 1;
    for (const number of [low, high]) {
      context.fillStyle = colours.muted;
      context.fillText(number === 0 ? "0" : number.toFixed(Math.abs(number) < 10 ? 2 : 0), this.left - 8, y(number));
      context.strokeStyle = colours.line;
      context.beginPath();
      context.moveTo(this.left, Math.round(y(number)) + 0.5); context.lineTo(width - this.right, Math.round(y(number)) + 0.5);
      context.stroke();
    }
    // By their square roots: a win's reward would hide all others.
    const most = Math.max(1e-9, ...reward.map(Math.abs)), zero = y(0), bar = Math.max(1, Math.min(6, (0.6 * (width - this.left - this.right)) / this.steps));
    for (let step = 0; step < this.steps; step++) {
      const room = reward[step] < 0 ? bottom - zero : 0.45 * (bottom - top);
      const size = Math.sign(reward[step]) * room * Math.sqrt(Math.abs(reward[step]) / most);
      context.globalAlpha = 0.45;
      context.fillStyle = reward[step] < 0 ? colours.other : colours.own;
      context.fillRect(this.x(step + 1) - bar / 2, Math.min(zero, zero - size), bar, Math.abs(size));
    }
    for (const past of [false, true]) {
      context.globalAlpha = past ? 1 : 0.35;
      context.strokeStyle = colours.text;
      context.lineWidth = 1.8;
      context.lineJoin = "round";
      context.save();
      context.beginPath();
      context.rect(past ? 0 : this.x(time), 0, past ? this.x(time) : width, height);
      context.clip();
      context.beginPath();
      value.forEach((number, step) => context.lineTo(this.x(step), y(number)));
      context.stroke();
      context.restore();
    }
    context.globalAlpha = 1;
    for (const { entity, frame } of episode.losses) {
      context.fillStyle = colours[entity.look.side];
      context.beginPath();
      context.arc(this.x(frame), entity.look.side === "own" ? 4 : 9, 2.2, 0, 2 * Math.PI);
      context.fill();
    }
    const at = Math.round(this.x(time)) + 0.5;
    context.strokeStyle = colours.attention;
    context.lineWidth = 1.5;
    context.beginPath();
    context.moveTo(at, 2); context.lineTo(at, height - 12);
    context.stroke();
    context.fillStyle = colours.attention;
    context.beginPath();
    context.arc(at, y(value[Math.min(Math.floor(time), this.steps - 1)]), 4, 0, 2 * Math.PI);
    context.fill();
    context.textBaseline = "alphabetic";
    context.textAlign = "center";
    context.fillStyle = colours.muted;
    const every = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((each) => this.steps / each <= Math.max(2, width / 70)) || 1000;
    for (let step = 0; step <= this.steps; step += every) context.fillText(step, this.x(step), height - 2);
  }

  x(time) { return this.left + (time / this.steps) * (this.width - this.left - this.right); }

  /** The time at a point of the page. */
  time(x) {
    const share = (x - this.left) / (this.width - this.left - this.right);
    return Math.round(Math.min(1, Math.max(0, share)) * this.steps);
  }
}
