// At the edge: knows what an update will come to before it travels, refuses what the rules of the shop forbid, and forwards
// the rest. Runs in workerd, on one's own machine by start.mjs.
import { applyOps } from 'iii-stream/edge';
import { callStream } from './call_stream.mjs';
import page from './index.html';

const SEATS_PER_ORDER_MAX = 6;
/** How often an order is thought over because somebody else was quicker. */
const ATTEMPTS_MAX = 5;

export default {
  async fetch(request, { STREAM_URL }) {
    const { pathname } = new URL(request.url);
    if (request.method === 'GET' && pathname === '/') {
      const html = page.replace('ws://127.0.0.1:3112', STREAM_URL);
      return new Response(html, { headers: { 'content-type': 'text/html; charset=utf-8' } });
    }
    if (request.method !== 'POST' || pathname !== '/orders') return new Response('not found', { status: 404 });
    return order(await request.json(), STREAM_URL);
  },
};

async function order({ show, by, seats }, streamUrl) {
  const ops = [
    { type: 'decrement', path: 'left', by: seats },
    { type: 'append', path: 'orders', value: { by, seats } },
  ];
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
    const current = await read(streamUrl, show);
    if (!current) return refuse(404, 'there is no such show');
    const started = performance.now();
    const predicted = predict(current.data, ops);
    if (predicted.refused) return refuse(predicted.status, predicted.refused);
    const answer = await callStream(streamUrl, 'stream::update', {
      stream_name: 'shop', group_id: 'tonight', item_id: show, ops,
      // What was looked at is what is changed, or nothing is.
      if: { seq: current.seq }, atomic: true, returning: 'new',
    });
    if (answer.error?.code === 'precondition_failed') continue;
    if (answer.error) return refuse(502, answer.error.message);
    const stored = answer.result.new_value;
    return Response.json({ stored, predicted: predicted.value, same: JSON.stringify(stored) === JSON.stringify(predicted.value), ms: performance.now() - started });
  }
  return refuse(409, 'too many others order this show just now');
}

/** What the server will make of the order, or why it is not even asked. */
function predict(data, ops) {
  let applied;
  try {
    applied = applyOps(data, ops);
  } catch (error) {
    return { status: 400, refused: error.message };
  }
  const { value, errors } = applied;
  const seats = data.left - value.left;
  if (errors.length > 0) return { status: 400, refused: errors[0].message };
  if (!(0 < seats && seats <= SEATS_PER_ORDER_MAX)) return { status: 422, refused: `an order is for 1 to ${SEATS_PER_ORDER_MAX} seats` };
  if (value.left < 0) return { status: 409, refused: `${seats} are too many, ${data.left} left` };
  return { value };
}

async function read(streamUrl, show) {
  const response = await fetch(`${streamUrl.replace(/^ws/, 'http')}/stream/shop/tonight/${encodeURIComponent(show)}`);
  return (await response.json()).items[0];
}

const refuse = (status, reason) => Response.json({ reason }, { status });
