// Pending mutations in the browser's IndexedDB, shared by all tabs of an origin.

import type { PendingStore, StoredMutation, StoredQueue } from "./pending_store.js";

/** The part of a browser's `indexedDB` that is used, or what stands in for it. */
export interface IndexedDbFactory {
  /** Gives an `IDBOpenDBRequest`. */
  open(name: string, version: number): unknown;
}

const VERSION = 1;
const QUEUES = "queues";
const MUTATIONS = "mutations";

/** The value of a request. */
function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

class IndexedDbStore implements PendingStore {
  readonly #factory: IndexedDbFactory | null;
  #opening: Promise<IDBDatabase> | undefined;

  constructor(readonly name: string, factory: IndexedDbFactory | null) {
    this.#factory = factory;
  }

  add(queue: StoredQueue, mutations: readonly StoredMutation[]): Promise<boolean> {
    return this.#change(async (queues, stored) => {
      const held = await done<StoredQueue | undefined>(queues.get(queue.client));
      if (held !== undefined && held.owner !== queue.owner) return false;
      queues.put(queue);
      for (const mutation of mutations) stored.put(mutation);
      return true;
    });
  }

  markSent(client: string, owner: string, seqs: readonly number[]): Promise<readonly number[]> {
    return this.#change(async (queues, stored) => {
      const held = await done<StoredQueue | undefined>(queues.get(client));
      if (held?.owner !== owner) return [];
      const found = await Promise.all(seqs.map((seq) => done<StoredMutation | undefined>(stored.get([client, seq]))));
      const ours = found.filter((mutation) => mutation !== undefined);
      for (const mutation of ours) {
        if (!mutation.wasSent) stored.put({ ...mutation, wasSent: true });
      }
      return ours.map(({ seq }) => seq);
    });
  }

  remove(client: string, seqs: readonly number[]): Promise<void> {
    return this.#change(async (queues, stored) => {
      for (const seq of seqs) stored.delete([client, seq]);
      if ((await done(stored.count(ofClient(client)))) === 0) queues.delete(client);
    });
  }

  replace(client: string, queue: StoredQueue, mutations: readonly StoredMutation[]): Promise<boolean> {
    return this.#change(async (queues, stored) => {
      const held = await done<StoredQueue | undefined>(queues.get(client));
      if (held?.owner !== queue.owner) return false;
      stored.delete(ofClient(client));
      queues.delete(client);
      queues.put(queue);
      for (const mutation of mutations) stored.put(mutation);
      return true;
    });
  }

  queues(): Promise<readonly StoredQueue[]> {
    return this.#read((queues) => done<StoredQueue[]>(queues.getAll()));
  }

  mutations(client: string): Promise<readonly StoredMutation[]> {
    return this.#read((_queues, stored) => done<StoredMutation[]>(stored.getAll(ofClient(client))));
  }

  adopt(known: StoredQueue, owner: string, aliveMs: number): Promise<readonly StoredMutation[] | null> {
    return this.#change(async (queues, stored) => {
      const held = await done<StoredQueue | undefined>(queues.get(known.client));
      if (held === undefined || held.owner !== known.owner || held.aliveMs !== known.aliveMs) return null;
      queues.put({ ...held, owner, aliveMs });
      return done<StoredMutation[]>(stored.getAll(ofClient(known.client)));
    });
  }

  touch(owner: string, aliveMs: number): Promise<void> {
    return this.#change(async (queues) => {
      for (const queue of await done<StoredQueue[]>(queues.getAll())) {
        if (queue.owner === owner) queues.put({ ...queue, aliveMs });
      }
    });
  }

  async close(): Promise<void> {
    const opening = this.#opening;
    this.#opening = undefined;
    // One that is still being opened may never be.
    void opening?.then((database) => database.close(), () => undefined);
  }

  #read<T>(work: (queues: IDBObjectStore, stored: IDBObjectStore) => Promise<T>): Promise<T> {
    return this.#transact("readonly", work);
  }

  #change<T>(work: (queues: IDBObjectStore, stored: IDBObjectStore) => Promise<T>): Promise<T> {
    return this.#transact("readwrite", work);
  }

  /** One transaction: resolves with what `work` gives once it is committed. `work` may wait for requests of its own only. */
  async #transact<T>(mode: IDBTransactionMode, work: (queues: IDBObjectStore, stored: IDBObjectStore) => Promise<T>): Promise<T> {
    const database = await this.#open();
    const transaction = database.transaction([QUEUES, MUTATIONS], mode);
    const committed = new Promise<void>((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error ?? new Error("the transaction was aborted"));
    });
    // Where `work` fails first nobody comes to wait for this.
    committed.catch(() => {});
    try {
      const value = await work(transaction.objectStore(QUEUES), transaction.objectStore(MUTATIONS));
      await committed;
      return value;
    } catch (error) {
      try {
        transaction.abort();
      } catch {
        // It has ended by itself.
      }
      throw error;
    }
  }

  #open(): Promise<IDBDatabase> {
    this.#opening ??= new Promise<IDBDatabase>((resolve, reject) => {
      if (this.#factory === null) throw new Error("there is no IndexedDB here");
      const request = this.#factory.open(this.name, VERSION) as IDBOpenDBRequest;
      request.onupgradeneeded = () => {
        request.result.createObjectStore(QUEUES, { keyPath: "client" });
        request.result.createObjectStore(MUTATIONS, { keyPath: ["client", "seq"] });
      };
      request.onblocked = () => reject(new Error(`another tab keeps an older ${this.name} open`));
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        const database = request.result;
        // A newer version of this package in another tab, or the browser clearing its data: the next use opens anew.
        const forget = (): void => {
          this.#opening = undefined;
          database.close();
        };
        database.onversionchange = forget;
        database.onclose = forget;
        resolve(database);
      };
    });
    return this.#opening;
  }
}

/** All keys `[client, seq]` of one client. */
const ofClient = (client: string): IDBKeyRange => IDBKeyRange.bound([client, 0], [client, Number.MAX_SAFE_INTEGER]);

/**
 * Keeps pending mutations in IndexedDB, so that they survive a reload, a crash of the tab and days without network.
 *
 * `name` is the name of the database. Use one per server and user (`"app-" + userId`): whoever opens a database sends what is in it.
 */
export function indexedDbStore(name = "iii-stream", factory: IndexedDbFactory | null = globalThis.indexedDB ?? null): PendingStore {
  return new IndexedDbStore(name, factory);
}
