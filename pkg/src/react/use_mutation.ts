// Edits whose progress a component shows.

import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { StreamError } from "../client/errors.js";
import type { GroupView } from "../client/group_view.js";
import type { JsonValue, Mutation } from "../client/values.js";
import { useStreamClient } from "./provider.js";

/** What {@link useMutation} gives. */
export interface MutationResult<Args extends unknown[]> {
  /** Makes the edit. The same function in every render as long as the group is the same. */
  readonly mutate: (...args: Args) => Mutation;
  /** How many edits made here are not settled yet. */
  readonly pending: number;
  /** Why the last edit that was settled here was rolled back; `null` if it was not. */
  readonly error: StreamError | null;
  /** Forgets the error. */
  readonly reset: () => void;
}

interface Progress {
  readonly pending: number;
  readonly error: StreamError | null;
}

const NOTHING: Progress = { pending: 0, error: null };

/**
 * An edit of a group, with its progress:
 * `const rename = useMutation<Todo, [string, string]>("todos", "list-1", (group, id, title) => group.update(id, [{ type: "set", path: "title", value: title }]))`.
 * The group need not be followed. `edit` may be another function in every render; the last one counts.
 */
export function useMutation<Value = JsonValue, Args extends unknown[] = []>(
  stream: string,
  groupId: string,
  edit: (group: GroupView<Value>, ...args: Args) => Mutation,
): MutationResult<Args> {
  const client = useStreamClient();
  const group = useMemo(() => client.group<Value>(stream, groupId), [client, stream, groupId]);
  const [progress, setProgress] = useState(NOTHING);
  const lastEdit = useRef(edit);
  useEffect(() => {
    lastEdit.current = edit;
  });
  const mutate = useCallback((...args: Args): Mutation => {
    const mutation = lastEdit.current(group, ...args);
    setProgress(({ pending, error }) => ({ pending: pending + 1, error }));
    mutation.settled.then(
      () => setProgress(({ pending }) => ({ pending: pending - 1, error: null })),
      (thrown: unknown) => setProgress(({ pending }) => ({ pending: pending - 1, error: thrown instanceof StreamError ? thrown : null })),
    );
    return mutation;
  }, [group]);
  const reset = useCallback(() => setProgress(({ pending }) => ({ pending, error: null })), []);
  return useMemo(() => ({ mutate, ...progress, reset }), [mutate, progress, reset]);
}
