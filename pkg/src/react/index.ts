// `iii-stream/react`: live groups and items, and edits that show at once, as hooks.

export { StreamProvider, type StreamProviderProps, useStreamClient } from "./provider.js";
export { type MutationResult, useMutation } from "./use_mutation.js";
export { type GroupResult, type ItemResult, useGroup, useItem, usePending, useStatus } from "./use_view.js";
