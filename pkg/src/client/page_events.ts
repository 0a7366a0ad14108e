// What the browser tells of the network and the page: moments at which a connection may be dead without knowing it.

/** Calls `check` when the network (`true`) or the page comes back. Gives what ends that. Without a browser nothing happens. */
export function onComeback(check: (isNetwork: boolean) => void): () => void {
  if (typeof addEventListener !== "function") return () => {};
  const seen = (): void => {
    if (document.visibilityState === "visible") check(false);
  };
  const online = (): void => check(true);
  const shown = (): void => check(false);
  const hasPage = typeof document !== "undefined";
  addEventListener("online", online);
  addEventListener("pageshow", shown);
  if (hasPage) document.addEventListener("visibilitychange", seen);
  return () => {
    removeEventListener("online", online);
    removeEventListener("pageshow", shown);
    if (hasPage) document.removeEventListener("visibilitychange", seen);
  };
}
