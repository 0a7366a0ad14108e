// Groups, items and the connection as hooks: a component renders when what it shows has changed.

import { useCallback, useMemo, useSyncExternalStore } from "react";
import type { GroupView } from "../client/group_view.js";
import type { ItemView } from "../client/item_view.js";
import type { ConnectionStatus, GroupSnapshot, ItemSnapshot, JsonValue } from "../client/values.js";
import { useStreamClient } from "./provider.js";

/** What {@link useGroup} gives. */
export interface GroupResult<Value> extends GroupSnapshot<Value> {
  /** For edits: `group.set(id, value)` and so on. The same object in every render. */
  readonly group: GroupView<Value>;
}

/** What {@link useItem} gives. */
export interface ItemResult<Value> extends ItemSnapshot<Value> {
  /** The item's value; `undefined` where there is none, or none is known yet. */
  readonly value: Value | undefined;
  /** For edits: `view.set(value)` and so on. The same object in every render. */
  readonly view: ItemView<Value>;
}

/** What a server renders, and a browser before it listens. */
const LOADING_GROUP: GroupSnapshot<never> = { items: [], status: "loading", error: null };
const LOADING_ITEM: ItemSnapshot<never> = { item: undefined, status: "loading", error: null };
const IDLE: ConnectionStatus = { state: "idle", reason: null, attempt: 0, nextAttemptAt: null };

const loadingGroup = (): GroupSnapshot<never> => LOADING_GROUP;
const loadingItem = (): ItemSnapshot<never> => LOADING_ITEM;
const idle = (): ConnectionStatus => IDLE;

/**
 * A group, live: its items with this client's edits, and how it stands. The component renders again when one of these changes;
 * items that did not change are the same objects, so that memoized rows do not.
 */
export function useGroup<Value = JsonValue>(stream: string, groupId: string): GroupResult<Value> {
  const client = useStreamClient();
  const group = useMemo(() => client.group<Value>(stream, groupId), [client, stream, groupId]);
  const subscribe = useCallback((listener: () => void) => group.subscribe(listener), [group]);
  const read = useCallback(() => (group.status === "idle" ? LOADING_GROUP : group.snapshot), [group]);
  const snapshot = useSyncExternalStore<GroupSnapshot<Value>>(subscribe, read, loadingGroup);
  return useMemo(() => ({ ...snapshot, group }), [snapshot, group]);
}

/** One item, live. Only changes of this item render the component again. */
export function useItem<Value = JsonValue>(stream: string, groupId: string, id: string): ItemResult<Value> {
  const client = useStreamClient();
  const view = useMemo(() => client.item<Value>(stream, groupId, id), [client, stream, groupId, id]);
  const subscribe = useCallback((listener: () => void) => view.subscribe(listener), [view]);
  const read = useCallback(() => (view.status === "idle" ? LOADING_ITEM : view.snapshot), [view]);
  const snapshot = useSyncExternalStore<ItemSnapshot<Value>>(subscribe, read, loadingItem);
  return useMemo(() => ({ ...snapshot, value: snapshot.item?.value, view }), [snapshot, view]);
}

/** How the connection stands. */
export function useStatus(): ConnectionStatus {
  const client = useStreamClient();
  const subscribe = useCallback((listener: () => void) => client.subscribe(listener), [client]);
  return useSyncExternalStore(subscribe, () => client.status, idle);
}

/** How many edits of this client are not settled yet. */
export function usePending(): number {
  const client = useStreamClient();
  const subscribe = useCallback((listener: () => void) => client.subscribe(listener), [client]);
  return useSyncExternalStore(subscribe, () => client.pending, none);
}

const none = (): number => 0;
