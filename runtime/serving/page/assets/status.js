// The page at `/`: asks for `/status` again and again, and shows what it says.

const EVERY = 2000;
const SLOWEST = 30000;
const charts = new Charts(at('charts'));
const tryForm = new TryForm(at('try'), () => refused());
let timer;
let failures = 0;
let asked = 0;

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
  refill(at('what'), serving, whatServes);
  refill(at('state'), [status.registry, status.capture, status.shadow], ([registry, capture, shadow]) => stateOf({ registry, capture, shadow }));
  refill(at('swaps'), status.swaps, swapsTable);
  refill(at('workers'), status.workers, workersTable);
  tryForm.show(serving);
  charts.draw(status.rates);
  at('content').hidden = false;
}

function refused() {
  clearTimeout(timer);
  asked += 1;
  const given = storedKey() !== null;
  storeKey(null);
  at('ready').textContent = '';
  askKey(given ? 'The server does not take this key.' : '', look);
}

async function look() {
  clearTimeout(timer);
  // An answer which comes after a newer question is not shown.
  const mine = ++asked;
  let problem = '';
  try {
    const response = await request('status');
    const text = await response.text();
    if (mine !== asked) return;
    if (response.status === 401) return void refused();
    if (response.ok) {
      show(parseExact(text));
      at('forget').hidden = false;
    } else {
      problem = `The server answers ${response.status} to the question how it is; what is shown is older.`;
    }
  } catch (error) {
    if (mine !== asked) return;
    problem = error instanceof TypeError || error.name === 'TimeoutError'
      ? 'The server does not answer; what is shown is older.'
      : `The server's answer could not be shown: ${error.message}`;
  }
  failures = problem ? failures + 1 : 0;
  trouble(problem);
  if (!document.hidden) timer = setTimeout(look, Math.min(SLOWEST, EVERY * 2 ** Math.min(failures, 8)));
}

at('forget').addEventListener('click', () => {
  storeKey(null);
  refused();
});
document.addEventListener('visibilitychange', () => {
  if (document.hidden) clearTimeout(timer);
  else if (storedKey() !== null) look();
});
if (storedKey() === null) askKey('', look);
else look();
