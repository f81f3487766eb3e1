// Objects of a picture resized about their centres over a background, as lse_core.objects.scale_objects does it.
//
// An object is {name, alpha, box, centre}: alpha is a Float32Array with the share of the object in each pixel, box
// its [left, top, right, bottom] and centre its [x, y], in pixels between centres of pixels.

/** The object whose mask is a picture of one channel, white where it is; null if it is nowhere. */
export function objectOf(name, { width, height, data }) {
  const alpha = data.map((level) => level / 255);
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  alpha.forEach((share, at) => {
    if (share <= 0.5) return;
    const [x, y] = [at % width, Math.floor(at / width)];
    [box[0], box[1]] = [Math.min(box[0], x), Math.min(box[1], y)];
    [box[2], box[3]] = [Math.max(box[2], x), Math.max(box[3], y)];
  });
  if (box[0] > box[2]) return null;
  return { name, alpha, box, centre: [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2], width, height };
}

const hat = (t) => Math.max(0, 1 - Math.abs(t));

/** For each of n new pixels the old ones that it is made of, [[pixel, weight], ...]: averages where it shrinks. */
function mixtures(n, centre, factor) {
  const step = 1 / factor;
  const wide = Math.max(step, 1);
  const reach = Math.ceil(wide);
  return Array.from({ length: n }, (_, p) => {
    const s = centre + (p - centre) * step;
    const near = [];
    let whole = 0;
    for (let j = Math.floor(s) - reach; j <= Math.floor(s) + reach + 1; j += 1) {
      const weight = hat((s - j) / wide);
      whole += weight;
      if (weight > 0 && j >= 0 && j < n) near.push([j, weight]);
    }
    return near.map(([j, weight]) => [j, weight / whole]);
  });
}

/** The picture with each object resized by its factor; later objects lie before earlier ones. */
export function resized({ picture, background, objects }, factors) {
  if (factors.every((factor) => factor === 1)) return picture;
  const { width, height, channels } = picture;
  const data = Float32Array.from(background.data);
  objects.forEach(({ alpha, centre }, k) => {
    const columns = mixtures(width, centre[0], factors[k]);
    const rows = mixtures(height, centre[1], factors[k]);
    const depth = channels + 1; // colours times their share, and the share
    const wide = new Float32Array(width * height * depth);
    for (let i = 0; i < height; i += 1)
      for (let j = 0; j < width; j += 1)
        for (const [from, weight] of columns[j]) {
          const old = i * width + from;
          const share = weight * alpha[old];
          if (share === 0) continue;
          const at = (i * width + j) * depth;
          for (let c = 0; c < channels; c += 1) wide[at + c] += share * picture.data[old * channels + c];
          wide[at + channels] += share;
        }
    const pixel = new Float64Array(depth);
    for (let i = 0; i < height; i += 1)
      for (let j = 0; j < width; j += 1) {
        pixel.fill(0);
        for (const [from, weight] of rows[i])
          for (let c = 0; c < depth; c += 1) pixel[c] += weight * wide[(from * width + j) * depth + c];
        const at = (i * width + j) * channels;
        for (let c = 0; c < channels; c += 1) data[at + c] = data[at + c] * (1 - pixel[channels]) + pixel[c];
      }
  });
  return { width, height, channels, data };
}
