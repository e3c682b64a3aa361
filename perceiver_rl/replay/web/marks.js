// Shapes and marks by themselves, for the field, the legend and the portrait.

const POLYGONS = [null, [4, 0], [4, 0.25], [3, 0.25], [6, 0.25], [5, 0.25], [8, 0.125], [3, 0.75]]; // sides, turn; null: a circle

/** The outline of a kind's shape around a point. */
function outline(context, kind, x, y, radius) {
  const polygon = POLYGONS[kind % POLYGONS.length];
  context.beginPath();
  if (!polygon) { context.arc(x, y, radius, 0, 2 * Math.PI); return; }
  const [sides, turn] = polygon, size = radius * (sides === 3 ? 1.3 : sides === 4 ? 1.18 : 1.08), first = kind === 1 ? 0 : sides === 4 ? 0.125 : turn;
  for (let i = 0; i < sides; i++) {
    const angle = 2 * Math.PI * (i / sides - first);
    context.lineTo(x + size * Math.cos(angle), y + size * Math.sin(angle));
  }
  context.closePath();
}

/** Fit a canvas's pixels to its size on the page, and give back its context in units of that size. */
function fitted(canvas) {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** What marks on the field mean, by name: drawn into the legend. */
const MARKS = {
  health: ({ context, x, y }, colours) => ring(context, x, y, 5.5, 2.4, [[colours.line, 1], [colours.own, 0.7]]),
  cooldown: ({ context, x, y }, colours) => ring(context, x, y, 6, 1.4, [[colours.muted, 0.45]]),
  target: ({ context, x, y, width }, colours) => {
    context.strokeStyle = context.fillStyle = colours.own;
    context.lineWidth = 1.6;
    context.beginPath();
    context.moveTo(1, y); context.lineTo(width - 7, y);
    context.stroke();
    context.beginPath();
    context.moveTo(width - 1, y); context.lineTo(width - 8, y - 4); context.lineTo(width - 8, y + 4);
    context.fill();
  },
  attention: ({ context, x, y, width }, colours) => {
    context.strokeStyle = colours.attention;
    context.lineWidth = 2.6;
    context.lineCap = "round";
    context.beginPath();
    context.moveTo(2, y + 4);
    context.quadraticCurveTo(x, y - 8, width - 2, y + 4);
    context.stroke();
  },
};

function drawMark(canvas, name, colours) {
  const { context, width, height } = fitted(canvas);
  MARKS[name]({ context, x: width / 2, y: height / 2, width }, colours);
}

function ring(context, x, y, radius, width, parts) {
  context.lineWidth = width;
  for (const [colour, share] of parts) {
    context.strokeStyle = colour;
    context.beginPath();
    context.arc(x, y, radius, -Math.PI / 2, -Math.PI / 2 + 2 * Math.PI * share);
    context.stroke();
  }
}

/** One entity's shape by itself. */
function drawIcon(canvas, kind, colour, radius) {
  const { context, width, height } = fitted(canvas);
  outline(context, kind, width / 2, height / 2, radius);
  context.fillStyle = colour;
  context.fill();
}
