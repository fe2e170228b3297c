// The panels: served version, state, swaps and workers.

// A list of facts; facts without a value are left out.
function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== '');
  return h('dl', { class: 'facts' }, known.map(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]));
}

// With explicit roles, because on a phone the style turns the rows into lists.
function table(columns, rows) {
  const style = ({ number: right }) => (right ? 'number' : null);
  return h(
    'table',
    { class: 'rows', role: 'table' },
    h(
      'thead',
      { role: 'rowgroup' },
      h('tr', { role: 'row' }, columns.map((column) => h('th', { role: 'columnheader', scope: 'col', class: style(column) }, column.name))),
    ),
    h(
      'tbody',
      { role: 'rowgroup' },
      rows.map((cells) =>
        h(
          'tr',
          { role: 'row' },
          cells.map((cell, index) => h('td', { role: 'cell', class: style(columns[index]), 'data-name': columns[index].name }, cell)),
        ),
      ),
    ),
  );
}

const pill = (style, text) => h('span', { class: `pill ${style}` }, text);
const muted = (text) => h('p', { class: 'muted' }, text);

function servedVersion(serving) {
  if (serving === null) return muted('No version is served yet.');
  const { lineage, metrics } = serving;
  const engine = h(
    'span',
    {},
    named(serving.engine),
    serving.compiled ? ', compiled' : ', not compiled',
    serving.engine_note ? h('span', { class: 'note' }, named(serving.engine_note)) : null,
  );
  const requests = h(
    'span',
    {},
    serving.merges_requests ? 'can share a call of the model' : 'one call of the model for each',
    serving.merging_note ? h('span', { class: 'note' }, named(serving.merging_note)) : null,
  );
  const names = Object.keys(metrics).sort();
  return [
    facts([
      ['Version', named(serving.version)],
      ['Since', moment(serving.loaded_at)],
      ['Engine', engine],
      ['Requests', requests],
      ['Output', named(serving.output)],
      ['Run', serving.run_id ? code(serving.run_id) : null],
      ['Git commit', lineage.git_commit ? code(lineage.git_commit) : null],
      ['Data', lineage.lake_repository ? named(lineage.lake_repository) : null],
      ['Data commit', lineage.lake_commit ? code(lineage.lake_commit) : null],
    ]),
    h('h3', { class: 'part' }, 'Metrics at promotion'),
    names.length
      ? h('div', { class: 'long', tabindex: names.length > 8 ? 0 : null }, facts(names.map((name) => [named(name), metrics[name] === null ? 'not a number' : number(metrics[name], 6)])))
      : muted('The run has no metrics.'),
  ];
}

const REGISTRIES = {
  reachable: ['good', 'reachable'],
  unreachable: ['bad', 'unreachable'],
  unknown: ['', 'not contacted yet'],
  none: ['', 'none: a folder is served'],
};

function stateOf({ registry, capture, shadow, trust }) {
  const parts = [
    facts([
      ['Registry', pill(...(REGISTRIES[registry] ?? ['', String(registry)]))],
      [
        'Capture',
        capture === null
          ? 'off'
          : h('span', {}, `${number(capture.written)} rows written`, capture.dropped ? h('span', { class: 'error' }, `, ${number(capture.dropped)} dropped`) : ', none dropped'),
      ],
      ['Shadow', shadow === null ? 'none' : null],
      ['Trust', trust.length ? h('span', {}, trust.map((kind) => [pill('warn', named(kind)), ' ']), h('span', { class: 'note' }, 'A version may run any code of its author when it is loaded.')) : null],
    ]),
  ];
  if (shadow !== null) {
    parts.push(
      h('h3', { class: 'part' }, 'Shadow: ', named(shadow.alias)),
      facts([
        ['Version', shadow.version === null ? 'none yet' : named(shadow.version)],
        ['Rows', number(shadow.rows)],
        ['Disagreement', shadow.disagreement === null ? 'no rows yet' : h('span', {}, number(shadow.disagreement), h('span', { class: 'note' }, named(shadow.disagreement_is)))],
        ['Skipped', shadow.dropped ? `${number(shadow.dropped)} rows, because the shadow was too slow` : null],
      ]),
    );
  }
  return parts;
}

function swapsTable(swaps) {
  if (!swaps.length) return muted('None since the start.');
  const columns = [{ name: 'When' }, { name: 'From' }, { name: 'To' }, { name: 'Took', number: true }, { name: 'Result' }];
  return table(
    columns,
    swaps.map((swap) => [
      moment(swap.at),
      swap.from === null ? '–' : named(swap.from),
      named(swap.to),
      `${number(swap.seconds, 3)} s`,
      swap.error === null ? pill('good', 'done') : h('span', {}, pill('bad', 'failed'), ' ', named(swap.error)),
    ]),
  );
}

function workersTable(workers) {
  if (!workers.length) return muted('No worker has reported yet.');
  const columns = [{ name: 'Process' }, { name: 'Version' }, { name: 'Engine' }, { name: 'State' }, { name: 'Requests', number: true }];
  return table(
    columns,
    workers.map((worker) => [
      String(worker.pid),
      worker.version === null ? '–' : named(worker.version),
      worker.engine === null ? '–' : named(worker.engine),
      worker.ready ? pill('good', 'ready') : pill('warn', 'not ready'),
      number(worker.requests),
    ]),
  );
}
