// A group as a component sees it: its items in order, unchanged ones with their identity.

import type { ChangedItem, ViewChanges } from "./replica.js";
import { keepUnchanged } from "./structure.js";
import type {
  EditOptions, GroupSnapshot, JsonValue, Mutation, SetOptions, StreamItem, UpdateOp, UpdateOptions,
} from "./values.js";
import { View, type ViewUser } from "./view.js";

interface Placed<Value> {
  readonly item: StreamItem<Value>;
  readonly order: number;
}

/** A group, live. Made by {@link StreamClient.group}; followed while it has listeners. */
export class GroupView<Value = JsonValue> extends View<GroupSnapshot<Value>> {
  override readonly id = null;
  /** In the order shown. */
  #placed: Placed<Value>[] = [];
  readonly #indexes = new Map<string, number>();
  #items: readonly StreamItem<Value>[] = [];

  /** @internal */
  constructor(stream: string, group: string, user: ViewUser) {
    super(stream, group, user);
  }

  /** The items, own edits included, in the order in which they were created. The same array as long as nothing changes. */
  get items(): readonly StreamItem<Value>[] {
    return this.snapshot.items;
  }

  /** Everything at this moment, for `useSyncExternalStore` and the like. */
  override get snapshot(): GroupSnapshot<Value> {
    const changes = this.user.changes(this);
    if (changes !== undefined && this.#apply(changes)) this.made = undefined;
    this.made ??= { items: this.#items, ...this.standing };
    return this.made;
  }

  /** One of the items. */
  get(id: string): StreamItem<Value> | undefined {
    const { items } = this.snapshot;
    const index = this.#indexes.get(id);
    return index === undefined ? undefined : items[index];
  }

  /** Stores a value, creating the item where it is missing. It shows at once; what becomes of it is in the mutation's `settled`. */
  set(id: string, value: Value, options: SetOptions = {}): Mutation {
    return this.user.mutate(this, "stream::set", id, { data: value, if: options.if, ttl_ms: options.ttlMs });
  }

  /**
   * Applies operations to an item, as `[{ type: "increment", path: "count", by: 1 }]`; a missing item is made by them, out of nothing.
   * Edits by others of the same item are kept, where a `set` would replace them.
   */
  update(id: string, ops: readonly UpdateOp[], options: UpdateOptions = {}): Mutation {
    return this.user.mutate(this, "stream::update", id, { ops, if: options.if, ttl_ms: options.ttlMs, atomic: options.atomic });
  }

  /** Deletes an item; a missing one is no error. */
  delete(id: string, options: EditOptions = {}): Mutation {
    return this.user.mutate(this, "stream::delete", id, { if: options.if });
  }

  /**
   * Sends an event to whoever watches, this client included (`onEvent`); it is not stored and changes no item. Like an edit it waits
   * for a connection. `id`: the item that it is about.
   */
  send(type: string, data: unknown, id?: string): Mutation {
    return this.user.mutate(this, "stream::send", id ?? null, { type, data });
  }

  /** @internal */
  override clear(): void {
    this.#placed = [];
    this.#indexes.clear();
    this.#items = [];
    this.made = undefined;
  }

  /** Whether anything differs afterwards. */
  #apply({ reset, items, removed }: ViewChanges): boolean {
    const changed = items.map((item) => this.#place(item));
    let isMoved = false;
    let last = this.#placed.at(-1)?.order ?? -Infinity;
    const kept = reset ? new Set(items.map(({ id }) => id)) : undefined;
    const gone = kept === undefined ? removed : [...this.#indexes.keys()].filter((id) => !kept.has(id));
    let hasChanged = gone.length > 0;
    for (const { item, order } of changed) {
      const index = this.#indexes.get(item.id);
      const former = index === undefined ? undefined : this.#placed[index];
      if (former?.item === item && former.order === order) continue;
      hasChanged = true;
      if (index !== undefined && former?.order === order) {
        this.#placed[index] = { item, order };
        continue;
      }
      // One that is new comes at the end as a rule: nothing has to be sorted then.
      isMoved ||= index !== undefined || order < last;
      last = Math.max(last, order);
      if (index !== undefined) this.#placed[index] = { item, order };
      else this.#indexes.set(item.id, this.#placed.push({ item, order }) - 1);
    }
    if (!hasChanged) return false;
    if (gone.length > 0) {
      const out = new Set(gone);
      this.#placed = this.#placed.filter(({ item }) => !out.has(item.id));
    }
    if (isMoved) this.#placed.sort((a, b) => a.order - b.order);
    if (isMoved || gone.length > 0) {
      this.#indexes.clear();
      this.#placed.forEach(({ item }, index) => this.#indexes.set(item.id, index));
    }
    this.#items = this.#placed.map(({ item }) => item);
    return true;
  }

  /** What changed as an item, with whatever of the former one is still true. */
  #place({ id, value, seq, order, pending }: ChangedItem): Placed<Value> {
    const index = this.#indexes.get(id);
    const former = index === undefined ? undefined : this.#placed[index]?.item;
    return { item: nextItem(former, { id, value: value as Value, seq, pending }), order };
  }
}

/** `next`, or `former` if that says the same; its value keeps what has not changed. */
export function nextItem<Value>(former: StreamItem<Value> | undefined, next: StreamItem<Value>): StreamItem<Value> {
  if (former === undefined) return next;
  const value = keepUnchanged(former.value, next.value) as Value;
  return value === former.value && next.seq === former.seq && next.pending === former.pending ? former : { ...next, value };
}
