// The map: the encoded data as dots along two axes, and the current latent as a disc.

const REACH = 3.6;

export class LatentMap {
  /** Calls move([x, y], done, time) while dragging, and jump(index) to go to an image's latent. */
  constructor(box, { move, jump }) {
    this.box = box;
    this.canvas = box.querySelector("canvas");
    this.thumb = box.querySelector("img");
    this.callbacks = { move, jump };
    this.points = null;
    this.at = [0, 0];
    box.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      box.setPointerCapture(event.pointerId);
      this.dragging = true;
      this.#drag(event);
    });
    box.addEventListener("pointermove", (event) => {
      if (this.dragging) this.#drag(event);
      else this.#preview(event);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      box.addEventListener(name, () => {
        if (this.dragging) move(this.at, true);
        this.dragging = false;
      });
    }
    box.addEventListener("pointerleave", () => { this.thumb.hidden = true; });
    box.addEventListener("dblclick", (event) => this.jump(this.#position(event)));
    box.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#resize()).observe(box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#resize());
  }

  /** Shows points, Float32Array [2, N] in standard deviations, or null for none. */
  show(points) {
    this.points = points;
    this.#resize();
  }

  put(at) {
    this.at = at;
    this.draw();
  }

  jump(at = this.at) {
    const index = this.#nearest(at);
    if (index >= 0) this.callbacks.jump(index);
  }

  draw() {
    const context = this.canvas.getContext("2d");
    const { width, height } = this.canvas;
    if (!width || !this.dots) return;
    context.clearRect(0, 0, width, height);
    context.drawImage(this.dots, 0, 0);
    const [x, y] = this.#pixels(...this.at.map((c) => Math.min(REACH, Math.max(-REACH, c))));
    const scale = devicePixelRatio;
    const style = getComputedStyle(document.documentElement);
    context.fillStyle = style.getPropertyValue("--vae");
    context.strokeStyle = style.getPropertyValue("--raised");
    context.lineWidth = 2.5 * scale;
    context.beginPath();
    context.arc(x, y, 8 * scale, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
  }

  #resize() {
    const size = Math.round(this.box.clientWidth * devicePixelRatio);
    if (!size) return;
    this.canvas.width = this.canvas.height = size;
    this.dots = new OffscreenCanvas(size, size);
    const context = this.dots.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    context.strokeStyle = style.getPropertyValue("--line");
    context.lineWidth = devicePixelRatio;
    const [cx, cy] = this.#pixels(0, 0);
    context.beginPath();
    context.moveTo(cx, 0); context.lineTo(cx, size);
    context.moveTo(0, cy); context.lineTo(size, cy);
    for (const radius of [1, 2, 3]) {
      context.moveTo(cx + radius * size / (2 * REACH), cy);
      context.arc(cx, cy, radius * size / (2 * REACH), 0, 2 * Math.PI);
    }
    context.stroke();
    if (this.points) {
      const count = this.points.length / 2;
      const radius = Math.max(0.9, Math.min(3, 90 / Math.sqrt(count))) * devicePixelRatio;
      context.globalAlpha = count > 1000 ? 0.4 : 0.7;
      context.fillStyle = style.getPropertyValue("--gan");
      for (let i = 0; i < count; i++) {
        const [x, y] = this.#pixels(this.points[i], this.points[count + i]);
        context.beginPath();
        context.arc(x, y, radius, 0, 2 * Math.PI);
        context.fill();
      }
    }
    this.draw();
  }

  #pixels(x, y) {
    const size = this.canvas.width;
    return [(x / REACH + 1) * size / 2, (1 - y / REACH) * size / 2];
  }

  #position(event) {
    const box = this.box.getBoundingClientRect();
    const clip = (fraction) => Math.min(1, Math.max(0, fraction));
    return [
      (clip((event.clientX - box.left) / box.width) * 2 - 1) * REACH,
      (1 - clip((event.clientY - box.top) / box.height) * 2) * REACH,
    ];
  }

  #nearest([x, y]) {
    let [best, nearest] = [Infinity, -1];
    const count = this.points ? this.points.length / 2 : 0;
    for (let i = 0; i < count; i++) {
      const distance = (this.points[i] - x) ** 2 + (this.points[count + i] - y) ** 2;
      if (distance < best) [best, nearest] = [distance, i];
    }
    return nearest;
  }

  #drag(event) {
    this.thumb.hidden = true;
    this.put(this.#position(event));
    this.callbacks.move(this.at, false, event.timeStamp);
  }

  #preview(event) {
    if (event.pointerType === "touch" || !this.points) return;
    const index = this.#nearest(this.#position(event));
    if (index !== this.previewed) this.thumb.src = `api/example/${index}.png`;
    this.previewed = index;
    const box = this.box.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    this.thumb.style.left = `${x > box.width / 2 ? x - 80 : x + 16}px`;
    this.thumb.style.top = `${y > box.height / 2 ? y - 80 : y + 16}px`;
    this.thumb.hidden = false;
  }

  #key(event) {
    const step = event.shiftKey ? 0.5 : 0.1;
    const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step],
      ArrowDown: [0, -step] }[event.key];
    if (by) {
      this.put(this.at.map((c, i) => Math.min(REACH, Math.max(-REACH, c + by[i]))));
      this.callbacks.move(this.at, true, event.timeStamp);
    } else if (event.key === "Enter") this.jump();
    else return;
    event.preventDefault();
  }
}
