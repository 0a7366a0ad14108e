// Keeps the mutations of one queue in the storage, one transaction after the other.

import type { PendingMutation } from "./pending_mutation.js";
import type { StoredMutation, StoredQueue } from "./pending_store.js";
import type { StoreGuard } from "./store_guard.js";

export class QueueStorage {
  readonly #store: StoreGuard | undefined;
  readonly #owner: string;
  readonly #stream: string;
  readonly #group: string;
  #last: Promise<unknown> = Promise.resolve();
  #unsaved: PendingMutation[] = [];
  #removed = new Map<string, number[]>();

  constructor(store: StoreGuard | undefined, owner: string, stream: string, group: string) {
    this.#store = store;
    this.#owner = owner;
    this.#stream = stream;
    this.#group = group;
  }

  /** Saves soon what is added, together with what else is added until then. `taken` hears of those whose queue belongs to another tab. */
  add(mutation: PendingMutation, saved: () => void, taken: (mutations: readonly PendingMutation[]) => void): void {
    const store = this.#store;
    if (store === undefined || store.isBroken) {
      mutation.isSaved = true;
      return;
    }
    this.#unsaved.push(mutation);
    if (this.#unsaved.length > 1) return;
    void this.#serial(async () => {
      const batch = this.#unsaved;
      this.#unsaved = [];
      for (const [client, mutations] of byClient(batch.filter(({ state }) => state === "pending"))) {
        const isOurs = await store.run((to) => to.add(this.#queue(client), mutations.map(stored)), true);
        for (const one of mutations) {
          one.isSaved = isOurs;
          one.isStored = isOurs && !store.isBroken;
        }
        if (!isOurs) taken(mutations);
      }
      saved();
    });
  }

  /** Marks as sent, and gives those that may be sent; the others are with another tab, or done by it. */
  markSent(client: string, mutations: readonly PendingMutation[]): Promise<readonly PendingMutation[]> {
    const store = this.#store;
    if (store === undefined || store.isBroken) return Promise.resolve(mutations);
    const inStore = mutations.filter(({ isStored }) => isStored).map(({ seq }) => seq);
    return this.#serial(async () => {
      const ours = new Set(await store.run((to) => to.markSent(client, this.#owner, inStore), inStore));
      return mutations.filter(({ isStored, seq }) => !isStored || ours.has(seq));
    });
  }

  /** Forgets a settled mutation. */
  remove({ client, seq, isStored }: PendingMutation): void {
    const store = this.#store;
    if (store === undefined || !isStored) return;
    const seqs = this.#removed.get(client);
    if (seqs !== undefined) {
      seqs.push(seq);
      return;
    }
    this.#removed.set(client, [seq]);
    void this.#serial(async () => {
      const batch = this.#removed.get(client) ?? [];
      this.#removed.delete(client);
      await store.runAnyway((from) => from.remove(client, batch), undefined);
    });
  }

  /** Puts mutations, which have a new identity now, in the place of what is stored of the `former` one. `false`: another tab has that. */
  async replace(former: string, mutations: readonly PendingMutation[]): Promise<boolean> {
    const store = this.#store;
    const client = mutations[0]?.client;
    if (store === undefined || store.isBroken || client === undefined) return true;
    return this.#serial(() => store.run((to) => to.replace(former, this.#queue(client), mutations.map(stored)), true));
  }

  /** The numbers that are still stored of a client. */
  async seqsOf(client: string): Promise<ReadonlySet<number>> {
    const mutations = await this.#store?.run((from) => from.mutations(client), []);
    return new Set(mutations?.map(({ seq }) => seq));
  }

  /** Resolves when everything so far is in the storage. */
  async written(): Promise<void> {
    await this.#last;
  }

  #serial<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => {});
    return result;
  }

  #queue(client: string): StoredQueue {
    return { client, stream: this.#stream, group: this.#group, owner: this.#owner, aliveMs: Date.now() };
  }
}

const stored = ({ client, seq, functionId, data, mayHaveArrived }: PendingMutation): StoredMutation => (
  { client, seq, functionId, data, wasSent: mayHaveArrived });

function byClient(mutations: readonly PendingMutation[]): Map<string, PendingMutation[]> {
  const groups = new Map<string, PendingMutation[]>();
  for (const mutation of mutations) {
    const group = groups.get(mutation.client);
    if (group === undefined) groups.set(mutation.client, [mutation]);
    else group.push(mutation);
  }
  return groups;
}
