// One item as a component sees it.

import { nextItem } from "./group_view.js";
import type { EditOptions, ItemSnapshot, JsonValue, Mutation, SetOptions, StreamItem, UpdateOp, UpdateOptions } from "./values.js";
import { View, type ViewUser } from "./view.js";

/** An item, live. Made by {@link StreamClient.item}; followed while it has listeners. */
export class ItemView<Value = JsonValue> extends View<ItemSnapshot<Value>> {
  #item: StreamItem<Value> | undefined;

  /** @internal */
  constructor(stream: string, group: string, override readonly id: string, user: ViewUser) {
    super(stream, group, user);
  }

  /** The item with its `seq` and `pending`; `undefined` where there is none, or none is known yet. */
  get item(): StreamItem<Value> | undefined {
    return this.snapshot.item;
  }

  /** The item's value; `undefined` where there is none, or none is known yet. */
  get value(): Value | undefined {
    return this.snapshot.item?.value;
  }

  /** Everything at this moment, for `useSyncExternalStore` and the like. */
  override get snapshot(): ItemSnapshot<Value> {
    const changes = this.user.changes(this);
    if (changes !== undefined) {
      const [changed] = changes.items;
      const former = this.#item;
      if (changed !== undefined) {
        const { id, value, seq, pending } = changed;
        this.#item = nextItem(former, { id, value: value as Value, seq, pending });
      } else if (changes.reset || changes.removed.length > 0) {
        this.#item = undefined;
      }
      if (this.#item !== former) this.made = undefined;
    }
    this.made ??= { item: this.#item, ...this.standing };
    return this.made;
  }

  /** Stores a value, creating the item where it is missing. It shows at once; what becomes of it is in the mutation's `settled`. */
  set(value: Value, options: SetOptions = {}): Mutation {
    return this.user.mutate(this, "stream::set", this.id, { data: value, if: options.if, ttl_ms: options.ttlMs });
  }

  /** Applies operations to the item; a missing one is made by them, out of nothing. Edits by others are kept, where a `set` would replace them. */
  update(ops: readonly UpdateOp[], options: UpdateOptions = {}): Mutation {
    return this.user.mutate(this, "stream::update", this.id, { ops, if: options.if, ttl_ms: options.ttlMs, atomic: options.atomic });
  }

  /** Deletes the item; a missing one is no error. */
  delete(options: EditOptions = {}): Mutation {
    return this.user.mutate(this, "stream::delete", this.id, { if: options.if });
  }

  /** Sends an event about the item to whoever watches; it is not stored. */
  send(type: string, data: unknown): Mutation {
    return this.user.mutate(this, "stream::send", this.id, { type, data });
  }

  /** @internal */
  override clear(): void {
    this.#item = undefined;
    this.made = undefined;
  }
}
