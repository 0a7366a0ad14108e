// What the browser tells of the network and the page: moments at which a connection may be dead without knowing it.

/** Calls `check` when the network or the page comes back. Gives what ends that. Without a browser nothing happens. */
export function onComeback(check: () => void): () => void {
  if (typeof addEventListener !== "function") return () => {};
  const seen = (): void => {
    if (document.visibilityState === "visible") check();
  };
  const hasPage = typeof document !== "undefined";
  addEventListener("online", check);
  addEventListener("pageshow", check);
  if (hasPage) document.addEventListener("visibilitychange", seen);
  return () => {
    removeEventListener("online", check);
    removeEventListener("pageshow", check);
    if (hasPage) document.removeEventListener("visibilitychange", seen);
  };
}
