// The crop frame over a picture; its aspect ratio is that of the networks' images.

const MAX_SHOWN = 1024;

export class Crop {
  /** `shape` is width / height of the networks' images. */
  constructor(box, slider, shape) {
    this.box = box;
    this.canvas = box.querySelector("canvas");
    this.slider = slider;
    this.shape = shape;
    slider.addEventListener("input", () => this.#size(slider.value / 100));
    let from = null;
    box.addEventListener("pointerdown", (event) => {
      box.setPointerCapture(event.pointerId);
      from = { x: event.clientX, y: event.clientY, left: this.left, top: this.top };
    });
    box.addEventListener("pointermove", (event) => {
      if (!from) return;
      const shown = this.canvas.getBoundingClientRect();
      this.#move(from.left + (event.clientX - from.x) / shown.width,
        from.top + (event.clientY - from.y) / shown.height);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      box.addEventListener(name, () => { from = null; });
    }
    box.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [-0.02, 0], ArrowRight: [0.02, 0], ArrowUp: [0, -0.02],
        ArrowDown: [0, 0.02] }[event.key];
      if (by) this.#move(this.left + by[0], this.top + by[1]);
      else if (event.key === "+" || event.key === "-") {
        slider.value = Number(slider.value) + (event.key === "+" ? 5 : -5);
        this.#size(slider.value / 100);
      } else return;
      event.preventDefault();
    });
  }

  /** Shows the picture in a file, upright; returns false if the browser cannot decode it. */
  async open(file) {
    let picture;
    try {
      picture = await createImageBitmap(file);
    } catch {
      return false;
    }
    const scale = Math.min(1, MAX_SHOWN / Math.max(picture.width, picture.height));
    this.canvas.width = Math.max(1, Math.round(picture.width * scale));
    this.canvas.height = Math.max(1, Math.round(picture.height * scale));
    this.picture = picture;
    this.slider.value = 100;
    this.left = this.top = 0;
    this.width = this.height = 1;
    this.#size(1);
    return true;
  }

  /** The crop as text: left, top, width, height as fractions of the picture. */
  get text() {
    return [this.left, this.top, this.width, this.height].map((x) => x.toFixed(6)).join(",");
  }

  #size(fraction) {
    const [centre, middle] = [this.left + this.width / 2, this.top + this.height / 2];
    const { width, height } = this.picture;
    const maximum = Math.min(width, height * this.shape);
    this.width = fraction * maximum / width;
    this.height = fraction * maximum / this.shape / height;
    this.#move(centre - this.width / 2, middle - this.height / 2);
  }

  #move(left, top) {
    this.left = Math.min(Math.max(0, left), 1 - this.width);
    this.top = Math.min(Math.max(0, top), 1 - this.height);
    const context = this.canvas.getContext("2d");
    const { width, height } = this.canvas;
    context.drawImage(this.picture, 0, 0, width, height);
    const frame = [this.left * width, this.top * height, this.width * width, this.height * height];
    context.fillStyle = "#000a";
    context.beginPath();
    context.rect(0, 0, width, height);
    context.rect(...frame);
    context.fill("evenodd");
    context.strokeStyle = "#fff";
    context.lineWidth = Math.max(2, width / 200);
    context.strokeRect(...frame);
  }
}
