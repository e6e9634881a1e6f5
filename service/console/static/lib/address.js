/**
 * The state of the page in its address: `#/view?name=value&…`. Whoever opens the address sees the same picture.
 *
 * The part behind # never reaches the server, so that no proxy and no log has rows in it.
 */

const WRITE_MS = 250;

/** The state that an address says: its view, and all values as texts. */
export function readAddress(hash = location.hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const state = Object.fromEntries(new URLSearchParams(query));
  return { ...state, view: path || "flows" };
}

/** The address of a state. Values that are null or empty are left out. */
export function writeAddress({ view, ...state }) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, String(value));
  }
  const text = query.toString().replaceAll("%2C", ",").replaceAll("%2F", "/").replaceAll("%3A", ":");
  return `#/${view}${text ? `?${text}` : ""}`;
}

/** The state of the page, kept in the address. */
export class Address {
  #pending = null;
  #heard;

  /** @param {(state: object) => void} heard is told of each state that the browser goes to. */
  constructor(heard) {
    this.#heard = heard;
    this.state = readAddress();
    addEventListener("popstate", () => this.#go());
    addEventListener("hashchange", () => this.#go());
  }

  #go() {
    const next = readAddress();
    if (writeAddress(next) === writeAddress(this.state)) return;
    clearTimeout(this.#pending);
    this.#pending = null;
    this.state = next;
    this.#heard(next);
  }

  /**
   * Change some values. The address follows a moment later, since browsers take no more than a few changes a second.
   * @param {object} patch values; null takes one away.
   * @param {{push?: boolean}} [how] whether the browser's way back leads to the state before.
   */
  set(patch, { push = false } = {}) {
    this.state = Object.fromEntries(
      Object.entries({ ...this.state, ...patch }).filter(([, value]) => value !== null && value !== undefined && value !== "")
        .map(([name, value]) => [name, String(value)]),
    );
    clearTimeout(this.#pending);
    if (push) {
      this.#pending = null;
      history.pushState(null, "", writeAddress(this.state));
    } else {
      this.#pending = setTimeout(() => history.replaceState(null, "", writeAddress(this.state)), WRITE_MS);
    }
  }
}

/** A number out of a state; the given one where there is none. */
export function number(state, name, otherwise) {
  const text = state[name];
  const value = text === undefined || text === "" ? NaN : Number(text);
  return Number.isFinite(value) ? value : otherwise;
}

/** Numbers with commas between them; the given ones where there are none, or not as many. */
export function numbers(state, name, otherwise) {
  const values = (state[name] ?? "").split(",").map((text) => (text === "" ? NaN : Number(text)));
  return values.every(Number.isFinite) && (otherwise === null || values.length === otherwise.length) ? values : otherwise;
}
