// Pending mutations in memory: they outlive a client, not the process. For tests and for clients that come and go within one page.

import type { PendingStore, StoredMutation, StoredQueue } from "./pending_store.js";

class MemoryStore implements PendingStore {
  readonly #queues = new Map<string, { queue: StoredQueue; mutations: Map<number, StoredMutation> }>();

  constructor(readonly name: string) {}

  async add(queue: StoredQueue, mutations: readonly StoredMutation[]): Promise<boolean> {
    const held = this.#queues.get(queue.client) ?? { queue, mutations: new Map<number, StoredMutation>() };
    if (held.queue.owner !== queue.owner) return false;
    for (const mutation of mutations) held.mutations.set(mutation.seq, mutation);
    this.#queues.set(queue.client, held);
    return true;
  }

  async markSent(client: string, owner: string, seqs: readonly number[]): Promise<readonly number[]> {
    const held = this.#queues.get(client);
    if (held?.queue.owner !== owner) return [];
    return seqs.filter((seq) => {
      const mutation = held.mutations.get(seq);
      if (mutation !== undefined) held.mutations.set(seq, { ...mutation, wasSent: true });
      return mutation !== undefined;
    });
  }

  async remove(client: string, seqs: readonly number[]): Promise<void> {
    const held = this.#queues.get(client);
    for (const seq of seqs) held?.mutations.delete(seq);
    if (held?.mutations.size === 0) this.#queues.delete(client);
  }

  async replace(client: string, queue: StoredQueue, mutations: readonly StoredMutation[]): Promise<boolean> {
    if (this.#queues.get(client)?.queue.owner !== queue.owner) return false;
    this.#queues.delete(client);
    return this.add(queue, mutations);
  }

  async queues(): Promise<readonly StoredQueue[]> {
    return [...this.#queues.values()].map(({ queue }) => queue);
  }

  async mutations(client: string): Promise<readonly StoredMutation[]> {
    return [...(this.#queues.get(client)?.mutations.values() ?? [])].sort((a, b) => a.seq - b.seq);
  }

  async adopt(known: StoredQueue, owner: string, aliveMs: number): Promise<readonly StoredMutation[] | null> {
    const held = this.#queues.get(known.client);
    if (held === undefined || held.queue.owner !== known.owner || held.queue.aliveMs !== known.aliveMs) return null;
    held.queue = { ...held.queue, owner, aliveMs };
    return this.mutations(known.client);
  }

  async touch(owner: string, aliveMs: number): Promise<void> {
    for (const held of this.#queues.values()) {
      if (held.queue.owner === owner) held.queue = { ...held.queue, aliveMs };
    }
  }

  async close(): Promise<void> {}
}

/** A store that keeps pending mutations in this process; give the same object to several clients. */
export function memoryStore(name = "memory"): PendingStore {
  return new MemoryStore(name);
}
