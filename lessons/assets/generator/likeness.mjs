// How like one film is to another, by the signs of its 511 lowest frequencies: medimgen.likeness, in JavaScript.
const BITS = 511, SIDE = 64;

// 64 x 64 grey values from a square of 128 x 128: means of two neighbours, along rows, then along columns.
function halve(grey, side) {
  const out = new Float32Array(SIDE * SIDE);
  const mean = (a, b) => (a + b + 1) >> 1;
  for (let r = 0; r < SIDE; r++) {
    for (let c = 0; c < SIDE; c++) {
      const at = 2 * r * side + 2 * c;
      out[r * SIDE + c] = mean(mean(grey[at], grey[at + 1]), mean(grey[at + side], grey[at + side + 1]));
    }
  }
  return out;
}

// Cosine transform (type II) along rows, then along columns; the scale does not matter for signs.
function cosines(pixels) {
  const wave = (k, i) => Math.cos((Math.PI / SIDE) * (i + 0.5) * k);
  const table = Array.from({ length: SIDE }, (_, k) => Float64Array.from({ length: SIDE }, (_, i) => wave(k, i)));
  const along = (data, step, jump) => {
    const out = new Float64Array(SIDE * SIDE);
    for (let line = 0; line < SIDE; line++) {
      for (let k = 0; k < SIDE; k++) {
        let sum = 0;
        for (let i = 0; i < SIDE; i++) sum += table[k][i] * data[line * jump + i * step];
        out[line * jump + k * step] = sum;
      }
    }
    return out;
  };
  return along(along(pixels, 1, SIDE), SIDE, 1);
}

// The signs of one image as 64 bytes, the first sign in the highest bit. The image is 128 pixels wide.
export function signs(grey, side) {
  const waves = cosines(halve(grey, side));
  const order = Array.from(waves.keys()).sort((a, b) => diagonal(a) - diagonal(b) || a - b).slice(1, BITS + 1);
  const bytes = new Uint8Array((BITS + 1) / 8);
  order.forEach((at, k) => { if (waves[at] > 0) bytes[k >> 3] |= 128 >> (k & 7); });
  return bytes;
}

const diagonal = (at) => Math.floor(at / SIDE) + (at % SIDE);

// Share of signs that differ from the most similar film; `known` holds 64 bytes for each. Negatives count too.
export function nearest(grey, side, known) {
  const own = signs(grey, side);
  const ones = Uint8Array.from({ length: 256 }, (_, n) => n.toString(2).replaceAll("0", "").length);
  let least = BITS;
  for (let film = 0; film < known.length; film += own.length) {
    let differ = 0;
    for (let k = 0; k < own.length; k++) differ += ones[own[k] ^ known[film + k]];
    least = Math.min(least, differ, BITS - differ);
  }
  return least / BITS;
}
