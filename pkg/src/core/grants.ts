// What the server lets a client do, asked here: so that a page need not offer what would be refused.

import type { Grants as WasmGrants } from "../wasm/glue.js";
import { codedError } from "./coded-error.js";
import { core } from "./module.js";

/** Something that a client may be allowed to do. `read` is following, reading calls included; each other is the function of its name. */
export type Ability = "read" | "set" | "update" | "delete" | "send";

/**
 * Abilities for what three patterns match; `*` in a pattern stands for any run of characters. As an auth function gives them, and as
 * `default_grants` of the server's configuration has them.
 */
export interface Grant {
  readonly stream: string;
  readonly group: string;
  /** Left out: all items. */
  readonly item?: string;
  readonly can: readonly Ability[];
}

/**
 * What one client may do, decided as the server does it. Whatever is not granted is not allowed.
 *
 * It holds memory of the wasm module until {@link Grants.free}, or until it is no longer in use.
 */
export class Grants {
  readonly #wasm: WasmGrants;

  /**
   * @param grants the list, or its JSON text
   * @throws an error of code `grants_invalid`, whose message says where the list is wrong: a pattern that is missing or empty, an
   * ability or a field that there is not, more than 1,000 grants or 65,536 bytes of patterns; `not_initialized` where {@link init}
   * has not finished
   */
  constructor(grants: readonly Grant[] | string) {
    const { Grants } = core();
    this.#wasm = new Grants(typeof grants === "string" ? grants : textOf(grants));
  }

  /**
   * Whether something is allowed.
   *
   * @param item the item; left out for an event that is about none, which takes a grant for all items of the group
   * @throws an error of code `ability_unknown`
   */
  may(ability: Ability, stream: string, group: string, item?: string): boolean {
    return this.#wasm.may(ability, stream, group, item);
  }

  /** Gives its memory back at once; it cannot be used any more. */
  free(): void {
    this.#wasm.free();
  }
}

function textOf(grants: readonly Grant[]): string {
  let reason: unknown = "it has no JSON form";
  try {
    const text: string | undefined = JSON.stringify(grants);
    if (text !== undefined) return text;
  } catch (error) {
    reason = error;
  }
  throw codedError("grants_invalid", `the list cannot be read: ${String(reason)}`);
}
