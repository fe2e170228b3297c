// Small line charts of the last five minutes.

const WIDTH = 300;
const HEIGHT = 100;

// A chart; draws `lines`, each { name, style, area }, in order.
class Chart {
  constructor(title, unit, lines, format) {
    this.title = title;
    this.unit = unit;
    this.lines = lines;
    this.format = format;
    this.now = h('p', { class: 'now' });
    this.top = h('span', { class: 'top', 'aria-hidden': 'true' });
    this.start = h('span', {}, '');
    this.end = h('span', {}, 'now');
    this.paths = lines.map((line) => ({
      area: line.area ? s('path', { class: `${line.style} area` }) : null,
      line: s('path', { class: line.style }),
    }));
    this.cursor = s('line', { class: 'cursor', y1: 0, y2: HEIGHT, visibility: 'hidden' });
    this.svg = s(
      'svg',
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img' },
      s('line', { class: 'grid', x1: 0, x2: WIDTH, y1: 0.5, y2: 0.5 }),
      s('line', { class: 'grid', x1: 0, x2: WIDTH, y1: HEIGHT / 2, y2: HEIGHT / 2 }),
      this.paths.flatMap(({ area, line }) => [area, line]),
      this.cursor,
    );
    this.element = h(
      'figure',
      { class: 'chart' },
      h('figcaption', {}, h('h3', {}, title)),
      this.now,
      h('div', { class: 'plot' }, this.svg, this.top),
      h('div', { class: 'axis' }, this.start, this.end),
    );
    this.svg.addEventListener('pointermove', (event) => this.point(event));
    this.svg.addEventListener('pointerleave', () => this.unpoint());
  }

  // Draws `series`, a list of values for each line; `current` is shown in large type.
  draw(seconds, series, current) {
    Object.assign(this, { seconds, series, current });
    const highest = Math.max(0, ...series.flat().filter((value) => value !== null));
    const ceiling = roundUp(highest);
    this.top.textContent = highest > 0 ? `${this.format(ceiling)} ${this.unit}` : '';
    this.start.textContent = seconds.length ? clock(seconds[0]) : '';
    series.forEach((values, index) => {
      const runs = points(values, ceiling);
      const { area, line } = this.paths[index];
      line.setAttribute('d', runs.map(pathOf).join(''));
      area?.setAttribute('d', runs.map((run) => `${pathOf(run)}V${HEIGHT}H${run[0][0]}Z`).join(''));
    });
    const values = this.lines.map(({ name }, index) => `${name} ${this.label(current[index])}`).join(', ');
    this.svg.setAttribute('aria-label', `${this.title}: ${values}; highest ${this.label(highest)}`);
    if (this.index === undefined) this.showValues(current, 'now');
  }

  label(value) {
    return value === null ? 'none' : `${this.format(value)} ${this.unit}`;
  }

  showValues(values, when) {
    const parts = this.lines.map(({ name, style }, index) => {
      const value = values[index];
      return h(
        'span',
        { class: 'figure' },
        h('span', { class: `key ${style}` }),
        value === null ? '–' : this.format(value),
        h('small', {}, ` ${this.unit}${this.lines.length > 1 ? ` ${name}` : ''}`),
      );
    });
    this.now.replaceChildren(...parts);
    this.end.textContent = when;
  }

  point(event) {
    const count = this.seconds?.length ?? 0;
    if (!count) return;
    const box = this.svg.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    this.index = Math.round(share * (count - 1));
    const x = (this.index / Math.max(1, count - 1)) * WIDTH;
    this.cursor.setAttribute('x1', x);
    this.cursor.setAttribute('x2', x);
    this.cursor.setAttribute('visibility', 'visible');
    this.showValues(this.series.map((values) => values[this.index]), clock(this.seconds[this.index]));
  }

  unpoint() {
    this.index = undefined;
    this.cursor.setAttribute('visibility', 'hidden');
    if (this.current) this.showValues(this.current, 'now');
  }
}

// Splits the values into runs without gaps; a missing value interrupts the line.
function points(values, ceiling) {
  const runs = [];
  let run = null;
  values.forEach((value, index) => {
    if (value === null) {
      run = null;
      return;
    }
    if (run === null) runs.push((run = []));
    const x = (index / Math.max(1, values.length - 1)) * WIDTH;
    run.push([x.toFixed(1), (HEIGHT - (value / ceiling) * (HEIGHT - 4)).toFixed(1)]);
  });
  return runs;
}

const pathOf = (run) => `M${run.map(([x, y]) => `${x} ${y}`).join('L')}${run.length === 1 ? 'h0.1' : ''}`;

// Returns the next round number.
function roundUp(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

const clock = (second) => new Date(second * 1000).toLocaleTimeString();

class Charts {
  constructor(parent) {
    this.rate = new Chart('Requests', '/s', [{ name: 'all', style: 'a', area: true }, { name: 'errors', style: 'b' }], number);
    this.latency = new Chart('Latency', 'ms', [{ name: 'p50', style: 'a' }, { name: 'p99', style: 'c' }], (value) => number(value, 3));
    this.batch = new Chart('Batch size', 'rows per call', [{ name: 'rows', style: 'a', area: true }], (value) => number(value, 3));
    parent.replaceChildren(this.rate.element, this.latency.element, this.batch.element);
  }

  draw(rates) {
    const recent = (values) => values.slice(-10);
    const mean = (values) => (values.length ? recent(values).reduce((sum, value) => sum + value, 0) / recent(values).length : null);
    const last = (values) => recent(values).findLast((value) => value !== null) ?? null;
    // No red line while there are no errors.
    const errors = rates.errors.map((value, index, all) => (value || all[index - 1] || all[index + 1] ? value : null));
    this.rate.draw(rates.seconds, [rates.requests, errors], [mean(rates.requests), mean(rates.errors)]);
    this.latency.draw(rates.seconds, [rates.p50_ms, rates.p99_ms], [last(rates.p50_ms), last(rates.p99_ms)]);
    this.batch.draw(rates.seconds, [rates.batch_rows], [last(rates.batch_rows)]);
  }
}
