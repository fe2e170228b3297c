// The form to try the model, built from its signature.

const TARGET = { path: 'predict', list: 'rows' };
const WHOLE = new Set(['integer', 'long']);
const REAL = new Set(['float', 'double']);
const JSON_KINDS = new Set(['tensor', 'json']);
const HINTS = { datetime: '2013-07-01T12:00:00Z', binary: 'Base64', tensor: '[0, 0]', json: 'JSON' };
const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

// One input of the model.
class Field {
  constructor(column, index, examples) {
    this.column = column;
    this.wide = JSON_KINDS.has(column.kind) || examples.some((value) => typeof value === 'string' && /[\r\n]/.test(value));
    const id = `field-${index}`;
    const attributes = { id, name: id, 'aria-describedby': `${id}-error`, autocomplete: 'off', spellcheck: 'false' };
    this.input = this.makeInput(attributes, id, examples);
    this.error = h('p', { class: 'error', id: `${id}-error` });
    // An empty text is a value, so null has its own checkbox.
    this.isNull = !column.required && ['string', 'binary'].includes(column.kind) ? h('input', { type: 'checkbox' }) : null;
    this.isNull?.addEventListener('change', () => this.dim());
    this.input.addEventListener('input', () => this.refuse(''));
    this.element = h(
      'div',
      { class: this.wide ? 'field wide' : 'field' },
      h(
        'div',
        { class: 'name' },
        h('label', { for: id }, named(column.name)),
        h('span', { class: 'kind' }, named(column.kind), column.required ? '' : ', optional'),
      ),
      this.input,
      this.options ?? null,
      this.isNull ? h('label', { class: 'null' }, this.isNull, 'null', h('span', { class: 'away' }, ' for ', named(column.name))) : null,
      this.error,
    );
  }

  makeInput(attributes, id, examples) {
    const { kind, required } = this.column;
    if (kind === 'boolean') {
      return h('select', attributes, ['true', 'false', ...(required ? [] : ['null'])].map((value) => h('option', { value }, value)));
    }
    if (this.wide) return h('textarea', { ...attributes, rows: 3, placeholder: HINTS[kind] });
    if (kind === 'string') {
      const values = [...new Set(examples.filter((value) => typeof value === 'string'))];
      if (values.length) this.options = h('datalist', { id: `${id}-values` }, values.map((value) => h('option', { value })));
    }
    return h('input', {
      ...attributes,
      type: 'text',
      dir: kind === 'string' ? 'auto' : 'ltr',
      inputmode: WHOLE.has(kind) ? 'numeric' : REAL.has(kind) ? 'decimal' : null,
      placeholder: HINTS[kind] ?? (required || kind === 'string' ? null : 'null'),
      list: this.options ? `${id}-values` : null,
    });
  }

  set(value) {
    const empty = value === null || value === undefined;
    if (this.isNull) this.isNull.checked = value === null;
    if (this.column.kind === 'boolean') this.input.value = empty && this.column.required ? 'true' : String(value ?? null);
    else if (JSON_KINDS.has(this.column.kind)) this.input.value = empty ? '' : JSON.stringify(value);
    else this.input.value = empty ? '' : String(value);
    this.dim();
    this.refuse('');
  }

  dim() {
    this.input.disabled = this.isNull?.checked ?? false;
  }

  // Returns the value as JSON. A value of the wrong kind is sent as text, and the server reports the error.
  json() {
    const { kind, required } = this.column;
    const text = this.input.value;
    if (this.isNull?.checked) return 'null';
    if (kind === 'string' || kind === 'binary') return JSON.stringify(text);
    const trimmed = text.trim();
    if (trimmed === '') return required ? JSON.stringify(text) : 'null';
    if (kind === 'boolean') return trimmed;
    // As typed: a JavaScript number would lose digits.
    if (WHOLE.has(kind) || REAL.has(kind)) return NUMBER.test(trimmed) ? trimmed : JSON.stringify(trimmed);
    if (JSON_KINDS.has(kind)) {
      try {
        JSON.parse(trimmed);
        return trimmed;
      } catch {
        return JSON.stringify(text);
      }
    }
    return JSON.stringify(trimmed);
  }

  refuse(message) {
    this.error.textContent = message;
    this.input.setAttribute('aria-invalid', message ? 'true' : 'false');
  }
}

class TryForm {
  // Calls `refused` if the server no longer accepts the key.
  constructor(parent, refused) {
    this.parent = parent;
    this.refused = refused;
    this.made = '';
  }

  // Shows the form for `serving`; keeps the typed values if the columns are the same.
  show(serving) {
    const columns = JSON.stringify(serving?.columns ?? null);
    this.examples = serving?.example ?? [];
    if (columns === this.made) return;
    this.made = columns;
    if (serving === null) {
      this.parent.replaceChildren(h('p', { class: 'muted' }, 'No version is served yet.'));
      return;
    }
    this.fields = serving.columns.map(
      (column, index) => new Field(column, index, this.examples.map((row) => valueOf(row, column.name))),
    );
    this.position = 0;
    this.fill();
    const many = this.fields.length > 12;
    this.answer = h('div', { class: 'answer', role: 'status', hidden: true });
    this.button = h('button', { type: 'submit' }, 'Predict');
    const next = h('button', { type: 'button', class: 'plain' }, 'Next example');
    next.addEventListener('click', () => {
      this.position += 1;
      this.fill();
    });
    const form = h(
      'form',
      { novalidate: true },
      many ? this.filter() : null,
      h('div', { class: many ? 'fields many' : 'fields' }, this.fields.map(({ element }) => element)),
      h('div', { class: 'actions' }, this.button, this.examples.length > 1 ? next : null),
    );
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.send();
    });
    this.parent.replaceChildren(form, this.answer);
  }

  filter() {
    const input = h('input', { type: 'search', placeholder: `Find one of ${this.fields.length} columns`, 'aria-label': 'Find a column' });
    input.addEventListener('input', () => {
      const wanted = input.value.trim().toLowerCase();
      for (const field of this.fields) field.element.hidden = !field.column.name.toLowerCase().includes(wanted);
    });
    // Enter must not submit the form.
    input.addEventListener('keydown', (event) => event.key === 'Enter' && event.preventDefault());
    return h('div', { class: 'filter' }, input);
  }

  fill() {
    const row = this.examples.length ? this.examples[this.position % this.examples.length] : {};
    for (const field of this.fields) field.set(valueOf(row, field.column.name));
  }

  body() {
    const members = this.fields.map((field) => `${JSON.stringify(field.column.name)}:${field.json()}`);
    return `{"${TARGET.list}":[{${members.join(',')}}]}`;
  }

  async send() {
    const body = this.body();
    this.button.disabled = true;
    for (const field of this.fields) field.refuse('');
    const started = performance.now();
    try {
      const response = await request(TARGET.path, { method: 'POST', body, seconds: 60 });
      const text = await response.text();
      const seconds = performance.now() - started;
      if (response.status === 401) this.refused();
      else this.tell(response, text, seconds, body);
    } catch (error) {
      this.say('bad', h('p', { class: 'value text' }, `The server did not answer: ${error.message}`));
    } finally {
      this.button.disabled = false;
    }
  }

  tell(response, text, took, body) {
    let answer = null;
    try {
      answer = parseExact(text);
    } catch {
      // A proxy answered; its text is shown.
    }
    const right = response.ok && answer !== null;
    const version = answer?.version ?? response.headers.get('x-tidemill-model-version');
    const id = answer?.request_id ?? response.headers.get('x-request-id');
    const left = right ? [] : this.refuseFields(answer?.errors ?? []);
    this.say(
      right ? '' : 'bad',
      right
        ? h('p', { class: 'value' }, named(predicted(answer)))
        : h('p', { class: 'value text' }, `${response.status}: `, named(answer?.detail ?? text.slice(0, 1000))),
      left.length ? h('ul', {}, left.map(({ field, message }) => h('li', {}, named(field), ': ', named(message)))) : null,
      facts([
        ['Version', version && named(version)],
        ['Request', id && code(id)],
        ['Took', `${number(took, 3)} ms, including the network`],
      ]),
      h('details', {}, h('summary', {}, 'Full answer'), h('pre', { tabindex: 0 }, text)),
      h('details', {}, h('summary', {}, 'As a curl command'), h('pre', { tabindex: 0 }, curl(body))),
    );
  }

  // The field that an error names; the server shortens long names.
  at(path) {
    const of = (field) => `${TARGET.list}[0].${field.column.name}`;
    const cut = path.endsWith('...') ? path.slice(0, -3) : null;
    return (
      this.fields.find((field) => of(field) === path) ??
      this.fields.find((field) => JSON_KINDS.has(field.column.kind) && path.startsWith(`${of(field)}[`)) ??
      this.fields.find((field) => cut !== null && of(field).startsWith(cut))
    );
  }

  say(style, ...children) {
    this.answer.className = `answer ${style}`;
    this.answer.replaceChildren(...children.filter((child) => child !== null));
    this.answer.hidden = false;
  }

  // Shows each error next to its field; returns the errors without a field.
  refuseFields(errors) {
    const left = [];
    let first = null;
    for (const { field, message } of errors) {
      const found = this.at(String(field));
      if (!found) {
        left.push({ field, message });
        continue;
      }
      found.refuse(message);
      found.element.hidden = false;
      first ??= found;
    }
    first?.input.focus();
    return left;
  }
}

const valueOf = (row, name) => (row !== null && typeof row === 'object' && Object.hasOwn(row, name) ? row[name] : undefined);

function predicted(answer) {
  const [output] = Array.isArray(answer.predictions) ? answer.predictions : [answer];
  // `{"score": 0.5}`: the panel "Served version" shows the name of the output.
  const [name, ...more] = Object.keys(output ?? {});
  const value = ['score', 'scores', 'prediction'].includes(name) && !more.length ? output[name] : output;
  if (Array.isArray(value)) return value.map((one) => (typeof one === 'number' ? number(one, 6) : JSON.stringify(one))).join(', ');
  return typeof value === 'number' ? number(value, 10) : typeof value === 'string' ? value : JSON.stringify(value);
}

function curl(body) {
  const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const url = new URL(TARGET.path, location.href).href;
  return [
    `curl ${quoted(url)}`,
    `-H "Authorization: Bearer $KEY"`,
    `-H 'Content-Type: application/json'`,
    `--data-raw ${quoted(body)}`,
  ].join(' \\\n  ');
}
