// Keeps the mutations of one group's queue in the storage, one transaction after the other.

import type { PendingMutation } from "./pending_mutation.js";
import type { StoredMutation, StoredQueue } from "./pending_store.js";
import type { StoreGuard } from "./store_guard.js";

/** Who hears what became of mutations in the storage. */
export interface QueueStorageUser {
  /** Some may be sent now. */
  saved(): void;
  /** Another tab has taken over their client, so these were not added. */
  notAdded(mutations: readonly PendingMutation[]): void;
  /** Another tab has taken these over, and sends them as they were before they got a new identity. */
  notReplaced(mutations: readonly PendingMutation[]): void;
}

export class QueueStorage {
  readonly #store: StoreGuard | undefined;
  readonly #owner: string;
  readonly #stream: string;
  readonly #group: string;
  readonly #user: QueueStorageUser;
  #last: Promise<unknown> = Promise.resolve();
  #unsaved: PendingMutation[] = [];
  #settled: PendingMutation[] = [];

  constructor(store: StoreGuard | undefined, owner: string, stream: string, group: string, user: QueueStorageUser) {
    this.#store = store;
    this.#owner = owner;
    this.#stream = stream;
    this.#group = group;
    this.#user = user;
  }

  /** Saves it soon, together with what else is added until then. */
  add(mutation: PendingMutation): void {
    const store = this.#store;
    mutation.isSaved = store === undefined || store.isBroken;
    if (store === undefined || mutation.isSaved) return;
    this.#unsaved.push(mutation);
    if (this.#unsaved.length > 1) return;
    void this.#serial(async () => {
      const batch = this.#unsaved.filter(isPending);
      this.#unsaved = [];
      // Identities as they are now: one may have changed since it was added.
      for (const [client, mutations] of groupBy(batch, (one) => one.client)) {
        const rows = mutations.map(stored);
        const isOurs = await store.run((to) => to.add(this.#queue(client), rows), true);
        mutations.forEach((one, index) => {
          // One whose identity has changed meanwhile is put in its place next.
          one.isSaved = isOurs && (one.client === client || store.isBroken);
          if (isOurs && !store.isBroken) one.storedAs = rows[index];
          if (one.state !== "pending") this.remove(one);
        });
        if (!isOurs) this.#user.notAdded(mutations);
      }
      this.#user.saved();
    });
  }

  /**
   * Marks as sent, and tells apart those that may be sent and those that are with another tab, or done by it. What got a new identity
   * meanwhile is neither: it is put in the place of the old one first.
   */
  async markSent(mutations: readonly PendingMutation[]): Promise<{ readonly ours: readonly PendingMutation[]; readonly gone: readonly PendingMutation[] }> {
    const store = this.#store;
    if (store === undefined || store.isBroken) return { ours: mutations, gone: [] };
    const asked = mutations.map(({ client, seq }) => ({ client, seq }));
    return this.#serial(async () => {
      const gone = new Set<PendingMutation>();
      const kept = mutations.filter((one) => isPending(one) && isStoredAsIs(one));
      for (const [client, ours] of groupBy(kept, (one) => one.client)) {
        const seqs = ours.map(({ seq }) => seq);
        const left = new Set(await store.run((to) => to.markSent(client, this.#owner, seqs), seqs));
        for (const one of ours) {
          if (isStoredAsIs(one) && !left.has(one.seq)) gone.add(one);
        }
      }
      const ours = mutations.filter((one, index) => {
        const isSame = one.client === asked[index]?.client && one.seq === asked[index]?.seq;
        // Of a broken storage nothing is waited for.
        return isSame && !gone.has(one) && (isStoredAsIs(one) || store.isBroken);
      });
      return { ours, gone: [...gone] };
    });
  }

  /** Forgets a settled mutation soon, together with others. */
  remove(mutation: PendingMutation): void {
    const store = this.#store;
    if (store === undefined || mutation.storedAs === undefined) return;
    this.#settled.push(mutation);
    if (this.#settled.length > 1) return;
    void this.#serial(async () => {
      const batch = this.#settled;
      this.#settled = [];
      const rows = batch.flatMap(({ storedAs }) => storedAs ?? []);
      for (const [client, ofClient] of groupBy(rows, (row) => row.client)) {
        await store.runAnyway((from) => from.remove(client, ofClient.map(({ seq }) => seq)), undefined);
      }
    });
  }

  /**
   * Puts mutations, which have a new identity now, in the place of what is stored of the `former` one. `notReplaced`
   * hears of them where another tab has that.
   */
  replace(former: string, mutations: readonly PendingMutation[]): void {
    const store = this.#store;
    if (store === undefined || store.isBroken) return;
    for (const one of mutations) one.isSaved = false;
    void this.#serial(async () => {
      const moving = mutations.filter((one) => isPending(one) && one.storedAs?.client === former);
      const fresh = mutations.filter((one) => isPending(one) && one.storedAs === undefined);
      const all = [...moving, ...fresh];
      const client = all[0]?.client;
      if (client !== undefined) {
        const [queue, rows] = [this.#queue(client), all.map(stored)];
        const isOurs = await store.run((to) => (moving.length > 0 ? to.replace(former, queue, rows) : to.add(queue, rows)), true);
        all.forEach((one, index) => {
          one.isSaved = isOurs && one.client === client;
          if (!store.isBroken) one.storedAs = isOurs ? rows[index] : undefined;
          if (one.state !== "pending") this.remove(one);
        });
        if (!isOurs) this.#user.notReplaced(all);
      }
      // Of a broken storage nothing is waited for.
      if (store.isBroken) for (const one of mutations) one.isSaved = true;
      this.#user.saved();
    });
  }

  /** The numbers that are still stored of a client; `undefined` where that cannot be known. */
  async seqsOf(client: string): Promise<ReadonlySet<number> | undefined> {
    const mutations = await this.#store?.run((from) => from.mutations(client), undefined);
    return mutations && new Set(mutations.map(({ seq }) => seq));
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

const isPending = ({ state }: PendingMutation): boolean => state === "pending";

/** Whether the storage holds it under the identity under which it would be sent. */
const isStoredAsIs = ({ client, seq, storedAs }: PendingMutation): boolean => storedAs?.client === client && storedAs.seq === seq;

const stored = ({ client, seq, functionId, data, mayHaveArrived }: PendingMutation): StoredMutation => (
  { client, seq, functionId, data, wasSent: mayHaveArrived });

function groupBy<Item, Key>(items: readonly Item[], keyOf: (item: Item) => Key): Map<Key, Item[]> {
  const groups = new Map<Key, Item[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [item]);
    else group.push(item);
  }
  return groups;
}
