// The page at `/`: polls `/status` and shows it.

const POLL_MS = 2000;
const MAX_POLL_MS = 30000;
const charts = new Charts(at('charts'));
const tryForm = new TryForm(at('try'), () => refused());
let timer;
let failures = 0;
let requests = 0;

function show(status) {
  const { model, alias, serving } = status;
  document.title = `${model} – tidemill`;
  refill(at('model'), model, named);
  refill(at('serves'), [alias, serving?.version], ([follows, version]) =>
    h('span', {}, version === undefined ? 'no version' : h('span', {}, 'version ', named(version)), follows === null ? '' : h('span', {}, ' as ', named(follows))),
  );
  refill(at('ready'), [status.ready, status.error], ([ready]) => (ready ? (status.error ? 'ready, with a problem' : 'ready') : 'not ready'));
  at('ready').className = `pill ${status.ready ? (status.error ? 'warn' : 'good') : 'bad'}`;
  at('error').hidden = !status.error;
  refill(at('error'), status.error, (error) => named(error ?? ''));
  refill(at('what'), serving, servedVersion);
  refill(at('state'), [status.registry, status.capture, status.shadow, status.trust], ([registry, capture, shadow, trust]) => stateOf({ registry, capture, shadow, trust }));
  refill(at('swaps'), status.swaps, swapsTable);
  refill(at('workers'), status.workers, workersTable);
  tryForm.show(serving);
  charts.draw(status.rates);
  at('content').hidden = false;
}

function refused() {
  clearTimeout(timer);
  requests += 1;
  const given = storedKey() !== null;
  storeKey(null);
  at('ready').textContent = '';
  askKey(given ? 'The server does not accept this key.' : '', poll);
}

async function poll() {
  clearTimeout(timer);
  // Ignore an answer that arrives after a newer request.
  const mine = ++requests;
  let problem = '';
  try {
    const response = await request('status');
    const text = await response.text();
    if (mine !== requests) return;
    if (response.status === 401) return void refused();
    if (response.ok) {
      show(parseExact(text));
      at('forget').hidden = false;
    } else {
      problem = `The server answered ${response.status} to the status request; this page shows older data.`;
    }
  } catch (error) {
    if (mine !== requests) return;
    problem = error instanceof TypeError || error.name === 'TimeoutError'
      ? 'The server does not answer; this page shows older data.'
      : `The server's answer could not be shown: ${error.message}`;
  }
  failures = problem ? failures + 1 : 0;
  trouble(problem);
  if (!document.hidden) timer = setTimeout(poll, Math.min(MAX_POLL_MS, POLL_MS * 2 ** Math.min(failures, 8)));
}

at('forget').addEventListener('click', () => {
  storeKey(null);
  refused();
});
document.addEventListener('visibilitychange', () => {
  if (document.hidden) clearTimeout(timer);
  else if (storedKey() !== null) poll();
});
if (storedKey() === null) askKey('', poll);
else poll();
