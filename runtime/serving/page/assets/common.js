// Shared by both pages. Everything from the server is shown as text nodes and never parsed as HTML.

const SVG = 'http://www.w3.org/2000/svg';
const KEY = 'tidemill.key';

const at = (id) => document.getElementById(id);

// Creates an element with attributes and children; strings become text, null is left out.
function h(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function s(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

// A name from outside, isolated so that its writing direction does not affect the text around it.
const named = (text) => h('bdi', {}, String(text));
const code = (text) => h('code', {}, named(text));

// Fills `element` only if `data` has changed, so that selection and focus stay.
const filledWith = new WeakMap();
function refill(element, data, make) {
  const now = JSON.stringify(data) ?? '';
  if (filledWith.get(element) === now) return;
  filledWith.set(element, now);
  element.replaceChildren(...[make(data)].flat(Infinity).filter((part) => part !== null));
}

// Parses JSON; integers that a number cannot represent exactly become strings of digits.
function parseExact(text) {
  return JSON.parse(text, (_, value, context) =>
    typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value) && context?.source
      ? context.source
      : value,
  );
}

// Formats a number with `digits` significant digits; integers keep all digits.
function number(value, digits = 4) {
  if (typeof value !== 'number' || !Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e15) return value.toLocaleString('en', { useGrouping: size >= 1e4 });
  if (size >= 1e15 || size < 1e-4) return String(Number(value.toPrecision(digits)));
  return value.toLocaleString('en', { maximumSignificantDigits: Math.max(digits, String(Math.trunc(size)).length), useGrouping: size >= 1e4 });
}

function moment(text) {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) return named(text);
  return h('time', { datetime: time.toISOString(), title: time.toISOString() }, time.toLocaleString());
}

// The key is only in this tab's storage, so that it disappears with the tab.
let memoryKey = null;
function storedKey() {
  try {
    return sessionStorage.getItem(KEY) ?? memoryKey;
  } catch {
    return memoryKey; // storage is switched off
  }
}

function storeKey(key) {
  memoryKey = key;
  try {
    if (key === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, key);
  } catch {
    // The key stays in memory until the page closes.
  }
}

function request(path, { method = 'GET', body, seconds = 15 } = {}) {
  const headers = { Accept: 'application/json' };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  const key = storedKey();
  if (key !== null) headers.Authorization = `Bearer ${key}`;
  return fetch(path, {
    method,
    body,
    headers,
    cache: 'no-store',
    credentials: 'omit',
    redirect: 'error',
    signal: AbortSignal.timeout(seconds * 1000),
  });
}

// Shows the form for the key with `message`; calls `proceed` when a key was entered.
function askKey(message, proceed) {
  const gate = at('gate');
  const field = at('key');
  at('content').hidden = true;
  at('trouble').hidden = true;
  at('forget').hidden = true;
  at('key-error').textContent = message;
  field.setAttribute('aria-invalid', message ? 'true' : 'false');
  field.value = '';
  gate.hidden = false;
  field.focus();
  gate.onsubmit = (event) => {
    event.preventDefault();
    const key = field.value.trim();
    if (!/^[\x21-\x7e]+$/.test(key)) {
      at('key-error').textContent = 'A key consists of letters, digits and punctuation, without spaces.';
      return;
    }
    storeKey(key);
    field.value = '';
    gate.hidden = true;
    proceed();
  };
}

function trouble(text) {
  at('trouble').textContent = text;
  at('trouble').hidden = !text;
}
