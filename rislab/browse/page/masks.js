"use strict";
/* COCO's compressed run lengths, and how masks are drawn. */
const Masks = (() => {
  /** Run lengths of compressed counts, the first one of background. */
  function runs(counts) {
    const found = [];
    let at = 0;
    while (at < counts.length) {
      let value = 0, shift = 0, code;
      do {
        code = counts.charCodeAt(at++) - 48;
        value += (code & 31) * 2 ** shift;
        shift += 5;
      } while (code & 32);
      if (code & 16) value -= 2 ** shift;
      found.push(found.length > 2 ? value + found[found.length - 2] : value);
    }
    return found;
  }

  /** A mask as Uint8Array of rows, 0 or 1; counts run down the columns. */
  function decode(counts, height, width) {
    const mask = new Uint8Array(height * width);
    let at = 0, on = 0;
    for (const length of runs(counts)) {
      if (on) for (let n = at; n < at + length; n++) mask[(n % height) * width + Math.floor(n / height)] = 1;
      at += length;
      on = 1 - on;
    }
    return mask;
  }

  const COLOURS = { truth: [0, 158, 115], a: [0, 114, 178], b: [230, 159, 0], both: [204, 60, 150] };

  function canvas(height, width, paint) {
    const made = document.createElement("canvas");
    made.width = width;
    made.height = height;
    const context = made.getContext("2d");
    const image = context.createImageData(width, height);
    paint(image.data);
    context.putImageData(image, 0, 0);
    return made;
  }

  function put(data, n, colour, alpha) {
    data[4 * n] = colour[0];
    data[4 * n + 1] = colour[1];
    data[4 * n + 2] = colour[2];
    data[4 * n + 3] = alpha;
  }

  /** Whether a pixel of a mask lies on its edge. */
  function edge(mask, n, width, height) {
    const x = n % width, y = (n - x) / width;
    return (x > 0 && !mask[n - 1]) || (x < width - 1 && !mask[n + 1]) || (y > 0 && !mask[n - width]) || (y < height - 1 && !mask[n + width]);
  }

  /** One mask, filled in its colour, with the edge of the truth over it. */
  function single(mask, truth, height, width, colour) {
    return canvas(height, width, (data) => {
      for (let n = 0; n < mask.length; n++) {
        if (truth !== null && truth[n] && edge(truth, n, width, height)) put(data, n, COLOURS.truth, 255);
        else if (mask[n]) put(data, n, COLOURS[colour], 150);
      }
    });
  }

  /** Where one of two masks is right and the other is not, and where both are wrong. */
  function difference(a, b, truth, height, width) {
    return canvas(height, width, (data) => {
      for (let n = 0; n < truth.length; n++) {
        const right = a[n] === truth[n], other = b[n] === truth[n];
        if (right && !other) put(data, n, COLOURS.a, 220);
        else if (other && !right) put(data, n, COLOURS.b, 220);
        else if (!right && !other) put(data, n, COLOURS.both, 150);
        else if (truth[n] && edge(truth, n, width, height)) put(data, n, COLOURS.truth, 255);
      }
    });
  }

  return { runs, decode, single, difference, COLOURS };
})();
