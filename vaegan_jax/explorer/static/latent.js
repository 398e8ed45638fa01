// Arithmetic of latents: coordinates along axes, interpolation, text for links.

/** An axis is {name, vector, middle, spread}: a unit vector, its origin, the length of one unit. */
export function axes(space) {
  const unit = (index) => Float64Array.from(space.middle, (_, i) => (i === index ? 1 : 0));
  return {
    directions: space.directions.map((vector, i) => ({
      name: `Direction ${i + 1}`, vector: Float64Array.from(vector), middle: space.middle,
      spread: space.spreads[i],
    })),
    units: space.units.map((index, i) => ({
      name: `Unit ${index}`, vector: unit(index), middle: space.middle,
      spread: space.deviations[i],
    })),
  };
}

export function coordinate(z, axis) {
  let sum = 0;
  for (let i = 0; i < z.length; i++) sum += axis.vector[i] * (z[i] - axis.middle[i]);
  return sum / axis.spread;
}

/** Returns z moved along an axis to a coordinate; orthogonal components are unchanged. */
export function moved(z, axis, to) {
  const by = (to - coordinate(z, axis)) * axis.spread;
  return z.map((x, i) => x + by * axis.vector[i]);
}

/** Spherical interpolation from a (t = 0) to b (t = 1) (White 2016, arXiv 1609.04468). */
export function slerp(a, b, t) {
  const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);
  const lengths = Math.sqrt(dot(a, a) * dot(b, b));
  const angle = lengths > 0 ? Math.acos(Math.min(1, Math.max(-1, dot(a, b) / lengths))) : 0;
  const sine = Math.sin(angle);
  const [p, q] = sine < 1e-4 ? [1 - t, t]
    : [Math.sin((1 - t) * angle) / sine, Math.sin(t * angle) / sine];
  return a.map((x, i) => p * x + q * b[i]);
}

export function equal(a, b) {
  return a.length === b.length && a.every((x, i) => x === b[i]);
}

/** Encodes a latent for a URL: little-endian float32 in URL-safe base64. */
export function toText(z) {
  const view = new DataView(new ArrayBuffer(4 * z.length));
  z.forEach((x, i) => view.setFloat32(4 * i, x, true));
  const bytes = String.fromCharCode(...new Uint8Array(view.buffer));
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** Decodes the text of `toText`; null if it is not a valid latent of this size. */
export function fromText(text, size) {
  let bytes;
  try {
    bytes = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  } catch {
    return null;
  }
  if (bytes.length !== 4 * size) return null;
  const view = new DataView(Uint8Array.from(bytes, (c) => c.charCodeAt(0)).buffer);
  const z = Array.from({ length: size }, (_, i) => view.getFloat32(4 * i, true));
  return z.every((x) => Number.isFinite(x) && Math.abs(x) <= 1000) ? z : null;
}
