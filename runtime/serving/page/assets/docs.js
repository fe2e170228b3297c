// The page at `/docs`: shows `/openapi.json`.

const METHODS = ['get', 'post', 'put', 'patch', 'delete', 'head', 'options'];

function operationsOf(document) {
  return Object.entries(isObject(document.paths) ? document.paths : {}).flatMap(([path, item]) =>
    METHODS.filter((method) => isObject(item?.[method])).map((method) => ({
      ...item[method],
      path,
      method,
      id: `${method}-${encodeURIComponent(path)}`,
      parameters: [...(item.parameters ?? []), ...(item[method].parameters ?? [])].map((one) => resolved(document, one)),
      tag: item[method].tags?.[0] ?? 'operations',
    })),
  );
}

function operationView(document, operation) {
  const body = resolved(document, operation.requestBody);
  const responses = Object.entries(isObject(operation.responses) ? operation.responses : {});
  return h(
    'section',
    { class: 'card operation', id: operation.id, 'aria-labelledby': `${operation.id}-title` },
    h('h2', { id: `${operation.id}-title` }, h('span', { class: `method ${operation.method}` }, operation.method.toUpperCase()), code(operation.path)),
    prose(operation.summary),
    prose(operation.description),
    operation.parameters.length
      ? [
          h('h3', {}, 'Parameters'),
          h(
            'ul',
            { class: 'members' },
            operation.parameters.map((one) => h('li', {}, line(one.name, { ...one.schema, description: one.description }, one.required, one.in))),
          ),
        ]
      : null,
    body.content ? [h('h3', {}, 'Body'), prose(body.description), contents(document, body.content)] : null,
    responses.length ? h('h3', {}, 'Answers') : null,
    responses.map(([status, reference]) => {
      const response = resolved(document, reference);
      const style = status.startsWith('2') ? 'answer-code ok' : 'answer-code';
      const label = [h('code', {}, named(status)), ' ', h('span', { dir: 'auto' }, marked(response.description ?? ''))];
      return response.content
        ? h('details', { class: style }, h('summary', {}, label), contents(document, response.content))
        : h('div', { class: style }, label);
    }),
  );
}

function schemaView([name, schema]) {
  return h('section', { class: 'card schema', id: schemaId(name) }, h('h3', {}, code(name)), prose(schema?.description), h('span', { class: 'muted' }, typed(schema)), members(schema));
}

function show(document) {
  const operations = operationsOf(document);
  const tags = [...new Set(operations.map(({ tag }) => tag))];
  const schemas = Object.entries(isObject(document.components?.schemas) ? document.components.schemas : {});
  const title = String(document.info?.title ?? 'API reference');
  globalThis.document.title = `${title} – API reference`;
  at('title').replaceChildren(named(title));
  at('version').replaceChildren(named(document.info?.version ?? ''));
  const link = (id, ...text) => h('li', {}, h('a', { href: `#${id}` }, text));
  at('contents').replaceChildren(
    ...tags.flatMap((tag) => [
      h('h2', {}, named(tag)),
      h('ul', {}, operations.filter((one) => one.tag === tag).map((one) => link(one.id, h('span', { class: `method ${one.method}` }, one.method.toUpperCase()), ' ', named(one.path)))),
    ]),
    ...(schemas.length ? [h('h2', {}, 'Schemas'), h('ul', {}, schemas.map(([name]) => link(schemaId(name), named(name))))] : []),
  );
  const about = document.info?.description;
  at('operations').replaceChildren(
    ...[
      about ? h('div', { class: 'about' }, prose(about)) : null,
      ...tags.flatMap((tag) => operations.filter((one) => one.tag === tag).map((one) => operationView(document, one))),
      ...schemas.map(schemaView),
    ].filter((part) => part !== null),
  );
  at('content').hidden = false;
  // The target of the URL's fragment did not exist when the page loaded.
  if (location.hash) at(location.hash.slice(1))?.scrollIntoView();
}

async function load() {
  trouble('');
  try {
    const response = await request('openapi.json');
    const text = await response.text();
    if (response.status === 401) {
      storeKey(null);
      askKey('The server does not accept this key.', load);
    } else if (response.ok) {
      show(parseExact(text));
      // A plain link would request the file without the key.
      at('save').href = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
      at('save').hidden = at('forget').hidden = false;
    } else {
      trouble(`The server answered ${response.status} to the request for its API description.`);
    }
  } catch (error) {
    trouble(`The API description could not be shown: ${error.message}`);
  }
}

at('forget').addEventListener('click', () => {
  storeKey(null);
  location.reload();
});
if (storedKey() === null) askKey('', load);
else load();
