// Monotone maps of [0, 1] and pictures warped by a pair of them, as lse_core.scale does it.
//
// A map is {knots, values}, both rising from 0 to 1. A warp is {x: map, y: map}. A picture is {width, height,
// channels, data}: data is a Float32Array of levels from 0 to 255, row by row, the channels of a pixel side by
// side. The unit square runs from the centre of the first pixel to the centre of the last.

/** The map of `segments` equal parts that changes nothing. */
export function identity(segments) {
  const knots = Array.from({ length: segments + 1 }, (_, k) => k / segments);
  return { knots, values: [...knots] };
}

/** The map that undoes `map`. */
export const inverse = ({ knots, values }) => ({ knots: values, values: knots });

/** Where `map` sends the point u. */
export function evaluate({ knots, values }, u) {
  let k = 1;
  while (k < knots.length - 1 && u > knots[k]) k += 1;
  const share = (u - knots[k - 1]) / (knots[k] - knots[k - 1]);
  return values[k - 1] + share * (values[k] - values[k - 1]);
}

/** `map` with the value of knot k moved to `value`, as far as no slope falls below 1 / ratio. */
export function moved({ knots, values }, k, value, ratio) {
  const least = values[k - 1] + (knots[k] - knots[k - 1]) / ratio;
  const most = values[k + 1] - (knots[k + 1] - knots[k]) / ratio;
  const next = [...values];
  next[k] = Math.min(Math.max(value, least), most);
  return { knots, values: next };
}

/** The two pixels between which each of the n points of `map` lies, and the share of the second. */
function taps(map, n) {
  const first = new Int32Array(n);
  const share = new Float64Array(n);
  for (let i = 0; i < n; i += 1) {
    const s = Math.min(Math.max(evaluate(map, n > 1 ? i / (n - 1) : 0), 0), 1) * (n - 1);
    first[i] = Math.max(0, Math.min(Math.floor(s), n - 2));
    share[i] = s - first[i];
  }
  return { first, share };
}

/** The picture at warp(p) for each pixel p: undoes `scale` with the same warp, but for interpolation. */
export function unscale({ width, height, channels, data }, warp) {
  const out = new Float32Array(data.length);
  const columns = taps(warp.x, width);
  const rows = taps(warp.y, height);
  const right = width > 1 ? channels : 0;
  const below = height > 1 ? width * channels : 0;
  let at = 0;
  for (let i = 0; i < height; i += 1) {
    const v = rows.share[i];
    const row = rows.first[i] * width;
    for (let j = 0; j < width; j += 1) {
      const u = columns.share[j];
      const from = (row + columns.first[j]) * channels;
      for (let c = 0; c < channels; c += 1, at += 1) {
        const p = from + c;
        const above = data[p] + u * (data[p + right] - data[p]);
        const under = data[p + below] + u * (data[p + below + right] - data[p + below]);
        out[at] = above + v * (under - above);
      }
    }
  }
  return { width, height, channels, data: out };
}

/** The picture with its content moved along `warp`: what is at p goes to warp(p). */
export const scale = (picture, { x, y }) => unscale(picture, { x: inverse(x), y: inverse(y) });
