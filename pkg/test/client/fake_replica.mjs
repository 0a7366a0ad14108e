// A small replica in plain JavaScript for tests of the client around it: whole values, `set`, `update` by set/append/increment, `delete`.

import { createHash } from 'node:crypto';

export class FakeReplica {
  subscriptions = new Map();
  pending = [];

  open(name, stream, group, item) {
    if (stream === '' || group === '') throw Object.assign(new Error('empty name'), { code: 'invalid_name' });
    this.subscriptions.set(name, { name, stream, group, item, confirmed: new Map(), shown: new Map(), seq: null, epoch: null, synced: false, isNew: true });
  }

  close(name) {
    this.subscriptions.delete(name);
  }

  join(name) {
    const { stream, group, item, epoch, seq } = this.subscriptions.get(name);
    const clients = [...new Set(this.#ofGroup(stream, group).map((one) => one.client))];
    return JSON.stringify({ type: 'join', data: {
      subscriptionId: name, streamName: stream, groupId: group, ...(item === undefined ? {} : { id: item }), version: 2, deltas: true, core: 1,
      ...(epoch === null ? {} : { since: { epoch, seq } }), ...(clients.length > 0 ? { clients } : {}),
    } });
  }

  disconnect() {}

  receive(text) {
    const frame = JSON.parse(text);
    if (frame.type === 'error') return JSON.stringify({ errors: [{ subscription: frame.subscriptionId, code: frame.code, message: frame.message }] });
    if (frame.event === undefined) throw Object.assign(new Error('no event'), { code: 'frame_invalid' });
    const news = { events: [], confirmed: [] };
    const { event } = frame;
    for (const one of this.subscriptions.values()) {
      if (one.stream !== frame.streamName || one.group !== frame.groupId) continue;
      if (frame.subscriptionId !== undefined && frame.subscriptionId !== one.name) continue;
      if (event.type === 'unauthorized') (news.denied ??= []).push(one.name);
      else if (event.type === 'sync') this.#sync(one, frame, news);
      else if (one.item === undefined || one.item === frame.id) this.#event(one, frame, news);
    }
    for (const { tag, seq } of [...(frame.mutations ?? []), ...(frame.mutation ? [frame.mutation] : [])]) {
      const isEcho = frame.mutation !== undefined;
      for (const one of this.pending.filter((p) => p.tag === tag && (isEcho ? p.seq === seq : p.seq <= seq))) {
        this.withdraw(one.client, one.seq);
        news.confirmed.push({ client: one.client, seq: one.seq, changeSeq: isEcho ? frame.seq : null });
      }
    }
    return JSON.stringify(news);
  }

  #sync(one, frame, news) {
    const { event } = frame;
    if (event.data !== undefined) {
      news.version1 = true;
      const values = one.item === undefined ? event.data : [event.data].filter((value) => value !== null);
      one.confirmed = new Map(values.map((value) => [value.id, { value, seq: null }]));
    } else if (event.mode === 'snapshot') {
      one.confirmed = new Map(event.items.map(({ id, seq, data }) => [id, { value: data, seq }]));
    }
    Object.assign(one, { epoch: frame.epoch ?? null, seq: frame.seq, synced: true, isDirty: true });
    (news.synced ??= []).push(one.name);
  }

  #event(one, frame, news) {
    const { event } = frame;
    one.seq = frame.seq;
    one.isDirty = true;
    if (event.type === 'event') news.events.push({ subscription: one.name, id: frame.id, seq: frame.seq ?? null, ...event.event });
    else if (event.type === 'delete') one.confirmed.delete(frame.id);
    else one.confirmed.set(frame.id, { value: event.ops ? apply(one.confirmed.get(frame.id)?.value, event.ops) : event.data, seq: frame.seq ?? null });
  }

  mutate(client, seq, functionId, text) {
    const data = JSON.parse(text);
    if (functionId === 'stream::set' && !('data' in data)) throw Object.assign(new Error('no data'), { code: 'deserialization_error' });
    const tag = createHash('sha256').update(client).digest('hex').slice(0, 32);
    this.pending.push({ client, seq, functionId, data, tag });
    this.#touch(data);
    return JSON.stringify({ opErrors: [], refused: null });
  }

  acknowledge(client, seq) {
    this.withdraw(client, seq);
  }

  withdraw(client, seq) {
    for (const one of this.pending) if (one.client === client && one.seq === seq) this.#touch(one.data);
    this.pending = this.pending.filter((one) => one.client !== client || one.seq !== seq);
  }

  dirty() {
    return [...this.subscriptions.values()].filter((one) => one.isDirty).map((one) => one.name);
  }

  changes(name) {
    const one = this.subscriptions.get(name);
    one.isDirty = false;
    const view = new Map([...one.confirmed].map(([id, { value, seq }], order) => [id, { id, value, seq, order, pending: false }]));
    for (const { functionId, data } of this.#ofGroup(one.stream, one.group)) {
      const id = data.item_id;
      if (functionId === 'stream::send' || (one.item !== undefined && one.item !== id)) continue;
      const former = view.get(id);
      if (functionId === 'stream::delete') view.delete(id);
      else view.set(id, { id, seq: null, order: 1e6 + view.size, ...former, value: functionId === 'stream::set' ? data.data : apply(former?.value, data.ops), pending: true });
    }
    const items = [...view.values()].filter((item) => one.isNew || JSON.stringify(one.shown.get(item.id)) !== JSON.stringify(item));
    const removed = [...one.shown.keys()].filter((id) => !view.has(id));
    const reset = one.isNew;
    one.isNew = false;
    one.shown = view;
    return JSON.stringify({ reset, synced: one.synced, items, removed });
  }

  free() {}

  #ofGroup(stream, group) {
    return this.pending.filter(({ data }) => data.stream_name === stream && data.group_id === group);
  }

  #touch({ stream_name: stream, group_id: group }) {
    for (const one of this.subscriptions.values()) if (one.stream === stream && one.group === group) one.isDirty = true;
  }
}

function apply(value, ops) {
  const result = structuredClone(value ?? {});
  for (const { type, path, value: operand, by } of ops) {
    if (type === 'set') result[path] = operand;
    if (type === 'append') result[path] = (result[path] ?? '') + operand;
    if (type === 'increment') result[path] = (result[path] ?? 0) + by;
  }
  return result;
}
