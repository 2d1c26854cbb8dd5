"use strict";
/* Means and intervals of what is shown; units of one picture are left out together, as in the report. */
const Numbers = (() => {
  /** The value that Student's t exceeds, on either side, with probability 0.05 (Abramowitz and Stegun 26.7.5; exact for 1 and 2). */
  function critical(freedom) {
    if (freedom < 1) return Infinity;
    if (freedom === 1) return 12.706204736;
    if (freedom === 2) return 4.30265273;
    const z = 1.959963984540054;
    const terms = [(z ** 3 + z) / 4, (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96, (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384,
      (79 * z ** 9 + 776 * z ** 7 + 1482 * z ** 5 - 1920 * z ** 3 - 945 * z) / 92160];
    return terms.reduce((sum, term, n) => sum + term / freedom ** (n + 1), z);
  }

  /**
   * Mean of values and half its 95 % interval, by the jackknife over pictures.
   * values: of each unit; pictures: of each unit, its picture; count: of all pictures there are.
   */
  function mean(values, pictures, count) {
    const sums = new Float64Array(count), numbers = new Uint32Array(count);
    let total = 0;
    for (let n = 0; n < values.length; n++) {
      total += values[n];
      sums[pictures[n]] += values[n];
      numbers[pictures[n]]++;
    }
    const without = [];
    for (let k = 0; k < count; k++) {
      if (numbers[k] && numbers[k] < values.length) without.push((total - sums[k]) / (values.length - numbers[k]));
    }
    const found = { mean: values.length ? total / values.length : NaN, half: NaN, pictures: 0, units: values.length };
    found.pictures = numbers.reduce((sum, number) => sum + (number > 0), 0);
    if (without.length < 2) return found;
    const middle = without.reduce((sum, value) => sum + value, 0) / without.length;
    const spread = without.reduce((sum, value) => sum + (value - middle) ** 2, 0) * (without.length - 1) / without.length;
    found.half = critical(without.length - 1) * Math.sqrt(spread);
    return found;
  }

  return { critical, mean };
})();
