// The todo page: shows a group, edits it at once, and keeps what the server has not confirmed yet, over a reload too.
import { memo, useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { StreamClient, indexedDbStore } from 'iii-stream';
import { StreamProvider, useGroup, usePending, useStatus } from 'iii-stream/react';

const client = new StreamClient(STREAM_URL, { storage: indexedDbStore('todo') });
const list = new URLSearchParams(location.search).get('list') ?? 'groceries';

function App() {
  const { items, status, group } = useGroup('todos', list);
  const connection = useStatus();
  const pending = usePending();
  const [refused, setRefused] = useState();
  // An edit shows at once. If the server refuses it, it disappears again, and this tells why.
  useEffect(() => client.onRejected(({ error }) => setRefused(error.message)), []);

  const isLive = connection.state === 'open';
  const open = items.filter(({ value }) => !value.done).length;

  const add = (event) => {
    event.preventDefault();
    const { text } = event.target.elements;
    if (text.value.trim()) group.set(crypto.randomUUID(), { text: text.value.trim(), count: 1, done: false });
    text.value = '';
    setRefused(undefined);
  };

  return (
    <>
      <header>
        <h1>{list}</h1>
        <span>{open} to get</span>
        <span className={`state ${connection.state}`} role="status">{isLive ? 'live' : 'off line'}</span>
      </header>
      <form onSubmit={add}>
        <input type="text" name="text" maxLength={200} autoComplete="off" placeholder="What is missing?" aria-label="New entry" autoFocus />
        <button>Add</button>
      </form>
      {!isLive && pending > 0 && <p className="notice">{pending} {pending === 1 ? 'edit is' : 'edits are'} kept here until the connection is back</p>}
      {refused && <p className="notice bad">{refused}</p>}
      <ul>{items.map((item) => <Entry key={item.id} item={item} group={group} />)}</ul>
      {items.length === 0 && <p className="empty">{status === 'live' ? 'Nothing on the list' : 'Loading'}</p>}
    </>
  );
}

// An item that nothing happened to is the same object as before, so only what changed renders.
const Entry = memo(function Entry({ item: { id, value, pending }, group }) {
  const count = (by) => group.update(id, [{ type: 'increment', path: 'count', by }]);
  return (
    <li className={value.done ? 'done' : ''}>
      <input type="checkbox" checked={value.done} aria-label={`Got ${value.text}`}
        onChange={() => group.update(id, [{ type: 'set', path: 'done', value: !value.done }])} />
      <span>{value.text}</span>
      {pending && <small>saving</small>}
      <div className="count">
        <button aria-label="One less" disabled={value.count < 2} onClick={() => count(-1)}>−</button>
        <b>{value.count}</b>
        <button aria-label="One more" onClick={() => count(1)}>+</button>
      </div>
      <button className="gone" aria-label={`Remove ${value.text}`} onClick={() => group.delete(id)}>✕</button>
    </li>
  );
});

createRoot(document.getElementById('root')).render(<StreamProvider client={client}><App /></StreamProvider>);
