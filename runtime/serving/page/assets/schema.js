// Shows JSON schemas as nested lists. References are links, so that cycles are not followed.

const DEEPEST = 8;
const LONGEST = 60; // of a pattern or default; openapi.json has the full text
const BOUNDS = {
  minimum: '≥',
  exclusiveMinimum: '>',
  maximum: '≤',
  exclusiveMaximum: '<',
  minLength: 'length ≥',
  maxLength: 'length ≤',
  minItems: 'items ≥',
  maxItems: 'items ≤',
  multipleOf: 'multiple of',
  pattern: 'pattern',
  format: 'format',
  default: 'default',
};

const schemaId = (name) => `schema-${encodeURIComponent(name)}`;
// Resolves references within the document.
function resolved(document, value) {
  for (let step = 0; step < 5 && isObject(value) && typeof value.$ref === 'string'; step += 1) {
    value = value.$ref.replace(/^#\//, '').split('/').reduce((at, part) => at?.[part.replaceAll('~1', '/').replaceAll('~0', '~')], document);
  }
  return isObject(value) ? value : {};
}

const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);
// Text with code between backticks.
const marked = (text) => String(text).split('`').map((part, index, all) => (index % 2 && index < all.length - 1 ? code(part) : index % 2 ? `\`${part}` : part));
const prose = (text) => (text ? h('p', { class: 'text', dir: 'auto' }, marked(text)) : null);

function refName(reference) {
  const name = String(reference).split('/').pop() ?? '';
  try {
    return decodeURIComponent(name).replaceAll('~1', '/').replaceAll('~0', '~');
  } catch {
    return name;
  }
}

// The type of a schema in one line: text and links.
function typed(schema) {
  if (schema === true || schema === undefined) return ['anything'];
  if (!isObject(schema)) return ['nothing'];
  if (schema.$ref) return [h('a', { href: `#${schemaId(refName(schema.$ref))}` }, named(refName(schema.$ref)))];
  if ('const' in schema) return [code(JSON.stringify(schema.const))];
  if (Array.isArray(schema.enum)) return ['one of ', ...between(schema.enum.map((value) => code(JSON.stringify(value))), ', ')];
  for (const [word, joint] of [['oneOf', ' or '], ['anyOf', ' or '], ['allOf', ' and ']]) {
    if (Array.isArray(schema[word])) return between(withoutDuplicates(schema[word].map(typed)), joint).flat();
  }
  if (Array.isArray(schema.prefixItems)) return ['[', ...between(schema.prefixItems.map(typed), ', ').flat(), ']'];
  if (schema.type === 'array' || schema.items) return ['list of ', ...typed(schema.items)];
  const types = [schema.type ?? (schema.properties ? 'object' : 'anything')].flat();
  return [named(types.join(' or '))];
}

// Removes parts with the same text.
function withoutDuplicates(parts) {
  const text = (part) => part.map((one) => one.textContent ?? one).join('');
  return parts.filter((part, index) => parts.findIndex((other) => text(other) === text(part)) === index);
}

const between = (parts, joint) => parts.flatMap((part, index) => (index ? [joint.cloneNode?.(true) ?? joint, part] : [part]));

function bounds(schema) {
  return Object.entries(BOUNDS)
    .filter(([word]) => isObject(schema) && word in schema)
    .map(([word, label]) => [label, word === 'format' ? String(schema[word]) : JSON.stringify(schema[word]) ?? ''])
    .map(([label, value]) => (value.length > LONGEST ? `${label} …` : `${label} ${value}`));
}

// The members of a schema; null if `typed` already shows everything.
function members(schema, depth = 0) {
  if (!isObject(schema) || schema.$ref || depth > DEEPEST) return null;
  for (const word of ['oneOf', 'anyOf', 'allOf']) {
    if (Array.isArray(schema[word])) {
      const parts = schema[word].map((one) => members(one, depth + 1)).filter((part) => part !== null);
      return parts.length ? between(parts, h('p', { class: 'muted' }, word === 'allOf' ? 'and' : 'or')) : null;
    }
  }
  if (isObject(schema.items)) return members(schema.items, depth + 1);
  const listed = Object.entries(isObject(schema.properties) ? schema.properties : {});
  const required = Array.isArray(schema.required) ? schema.required : [];
  if (isObject(schema.additionalProperties)) listed.push([null, schema.additionalProperties]);
  if (!listed.length) return null;
  return h(
    'ul',
    { class: 'members' },
    listed.map(([name, member]) => h('li', {}, line(name, member, required.includes(name)), members(member, depth + 1))),
  );
}

function line(name, schema, required, place = '') {
  const limits = bounds(schema);
  return [
    name === null ? 'any other name' : code(name),
    ' ',
    h('span', { class: 'type' }, typed(schema), limits.length ? `, ${limits.join(', ')}` : ''),
    place ? h('span', { class: 'type' }, ` in ${place}`) : null,
    required ? h('span', { class: 'must' }, ' required') : null,
    prose(schema?.description),
  ];
}

function examplesOf(media) {
  const found = [];
  if ('example' in media) found.push(['Example', media.example]);
  for (const [name, example] of Object.entries(isObject(media.examples) ? media.examples : {})) {
    found.push([example?.summary ?? name, example?.value]);
  }
  if (!found.length && isObject(media.schema)) {
    if ('example' in media.schema) found.push(['Example', media.schema.example]);
    else if (Array.isArray(media.schema.examples)) found.push(...media.schema.examples.map((value) => ['Example', value]));
  }
  return found.map(([name, value]) =>
    h('details', {}, h('summary', {}, named(name)), h('pre', { tabindex: 0 }, typeof value === 'string' ? value : JSON.stringify(value, null, 2) ?? '')),
  );
}

// The content of a body: each media type with its schema and examples.
function contents(document, content) {
  return Object.entries(isObject(content) ? content : {}).map(([type, media]) =>
    h(
      'div',
      {},
      h('h4', {}, code(type)),
      isObject(media) ? [h('span', { class: 'muted' }, typed(media.schema)), members(resolved(document, media.schema)), examplesOf(media)] : null,
    ),
  );
}
