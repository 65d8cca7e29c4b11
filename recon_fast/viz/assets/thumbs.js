"use strict";
// Small clouds on a canvas, painted from far to near; dragged or by arrow keys they turn.
const TURN = { angle: 0.6, tilt: 0.35 };
function thumbnail(canvas, points, first, count, { angle, tilt } = TURN) {
  const side = Math.round(Math.max(canvas.clientWidth, 60) * Math.min(devicePixelRatio || 1, 2));
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  const [c, s, ct, st] = [Math.cos(angle), Math.sin(angle), Math.cos(tilt), Math.sin(tilt)];
  const drawn = [];
  for (let i = first; i < first + count; i++) {
    const [x, y, z] = [0, 1, 2].map((axis) => points[3 * i + axis] / 127.5 - 1);
    const across = c * x + s * z, depth = c * z - s * x;
    drawn.push([across, ct * y - st * depth, st * y + ct * depth]);
  }
  drawn.sort((a, b) => a[2] - b[2]);
  const scale = side * 0.46, size = Math.max(side / 75, 1.5);
  const dark = isDark();
  for (const [x, y, depth] of drawn) {
    const near = Math.min(Math.max((depth + 1) / 2, 0), 1);
    const light = dark ? 38 + 42 * near : 72 - 48 * near;
    context.fillStyle = `hsl(208 55% ${light}%)`;
    context.fillRect(side / 2 + scale * x - size / 2, side / 2 - scale * y - size / 2, size, size);
  }
}

// A canvas that is drawn when it comes into view and can be turned.
function turnable(canvas, points, index, count) {
  const turn = { ...TURN };
  const draw = () => thumbnail(canvas, points, index * count, count, turn);
  const turnBy = (angle, tilt) => {
    turn.angle += angle;
    turn.tilt = Math.min(Math.max(turn.tilt + tilt, -1.5), 1.5);
    draw();
  };
  canvas.tabIndex = 0;
  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons) turnBy(-event.movementX / 60, event.movementY / 60);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0.25, 0], ArrowRight: [-0.25, 0], ArrowUp: [0, 0.2], ArrowDown: [0, -0.2] }[event.key];
    if (!step) return;
    event.preventDefault();
    turnBy(...step);
  });
  return draw;
}
