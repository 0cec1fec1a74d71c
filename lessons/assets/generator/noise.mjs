// Repeatable noise, the same numbers as medimgen.generate.noise in Python: the hash pcg3d of (counter, seed, stream),
// then Box-Muller. Jarzynski and Olano, "Hash functions for GPU rendering", JCGT 9(3), 2020, listing 16.

// Three well-mixed 32-bit numbers from three others; all arithmetic modulo 2**32.
export function pcg3d(x, y, z) {
  [x, y, z] = [x, y, z].map((v) => (Math.imul(v, 1664525) + 1013904223) | 0);
  for (const turn of [0, 1]) {
    x = (x + Math.imul(y, z)) | 0;
    y = (y + Math.imul(z, x)) | 0;
    z = (z + Math.imul(x, y)) | 0;
    if (turn === 0) [x, y, z] = [x, y, z].map((v) => v ^ (v >>> 16));
  }
  return [x >>> 0, y >>> 0, z >>> 0];
}

// `count` standard normal numbers as Float32Array. Test vector: noise(7, 2, 4) = -1.4143867, -0.11090274, ...
export function noise(seed, stream, count) {
  const made = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const [p, q] = pcg3d(i / 2, seed, stream);
    const radius = Math.sqrt(-2 * Math.log((p + 1) / 2 ** 32));
    const angle = q * ((2 * Math.PI) / 2 ** 32);
    made[i] = radius * Math.cos(angle);
    if (i + 1 < count) made[i + 1] = radius * Math.sin(angle);
  }
  return made;
}
