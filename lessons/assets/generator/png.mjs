// A grey PNG with text inside it, as medimgen.generate.save_png writes one.
const utf8 = (text) => new TextEncoder().encode(text);
const number = (n) => [n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255];

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});
const crc = (bytes) => ~bytes.reduce((c, b) => TABLE[(c ^ b) & 255] ^ (c >>> 8), ~0);

function chunk(name, ...parts) {
  const body = parts.flatMap((part) => [...(typeof part === "string" ? utf8(part) : part)]);
  const named = Uint8Array.from([...utf8(name), ...body]);
  return [...number(body.length), ...named, ...number(crc(named))];
}

// `text` maps keywords to what they say: plain text as tEXt, anything beyond ASCII as iTXt.
export async function png(grey, side, text) {
  const rows = new Uint8Array(side * (side + 1));  // every row begins with 0: no filter
  for (let r = 0; r < side; r++) rows.set(grey.subarray(r * side, (r + 1) * side), r * (side + 1) + 1);
  const packed = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const words = Object.entries(text).flatMap(([key, value]) => /^[\x20-\x7e]*$/.test(value)
    ? chunk("tEXt", key, [0], value)
    : chunk("iTXt", key, [0, 0, 0, 0, 0], value));
  return new Blob([Uint8Array.from([
    137, 80, 78, 71, 13, 10, 26, 10,
    ...chunk("IHDR", number(side), number(side), [8, 0, 0, 0, 0]),
    ...words,
    ...chunk("IDAT", new Uint8Array(await new Response(packed).arrayBuffer())),
    ...chunk("IEND"),
  ])], { type: "image/png" });
}
