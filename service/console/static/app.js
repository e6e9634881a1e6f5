/** The page: its bar, the view that the address names, and what holds while the server comes and goes. */

import { Address, writeAddress } from "./lib/address.js";
import { Api, Away } from "./lib/api.js";
import { select } from "./lib/controls.js";
import { h, replace, svg } from "./lib/dom.js";
import { newest } from "./lib/flows.js";
import { problemBox, waiting } from "./lib/layout.js";
import { choose, isDark, onTheme } from "./lib/theme.js";
import { VIEWS, viewOf } from "./views.js";

const POLL_MS = 4000;
const LOADING_MS = 1200;

class App {
  #view = null;
  #mounted = null;
  #key = "";
  #turn = 0;
  #details = new Map();
  #timer = null;
  #isPartial = false;  // a browser asks only once for a module

  constructor() {
    this.api = new Api(new URL("../", import.meta.url));
    this.address = new Address(() => this.#route());
    this.flows = [];
    this.standard = null;
    this.flow = null;
    this.main = document.getElementById("main");
    this.live = document.getElementById("live");
    this.notices = document.getElementById("notices");
    this.api.onaway = () => this.#away();
    this.api.onback = () => this.#back();
    this.api.onkey = (problem) => this.#askKey(problem);
    this.#buildBar();
  }

  /** The state that the address holds. */
  get state() { return this.address.state; }

  /** Change the state; the view is told nothing, since it is the view that changes it. */
  set(patch, how) {
    this.address.set(patch, how);
    this.#paintLinks();
  }

  /** Go to a view. */
  go(view, patch = {}) {
    this.address.set({ ...Object.fromEntries(Object.keys(this.state).map((name) => [name, null])), ...this.#kept(), ...patch, view }, { push: true });
    this.#route();
  }

  /** The address of a view, with the flow that is chosen. */
  link(view, patch = {}) { return writeAddress({ ...this.#kept(), ...patch, view }); }

  /** Say something to who cannot see the page. */
  say(text) { this.live.textContent = text; }

  /** The entry of a flow's version with its manifest. */
  async describe({ name, version }) {
    const id = `${name}/${version}`;
    if (!this.#details.has(id)) {
      const asked = this.api.json({ path: `/models/${name}/versions/${version}` });
      this.#details.set(id, asked);
      asked.catch(() => this.#details.delete(id));
    }
    return this.#details.get(id);
  }

  /** Ask for the flows, and show what the address names. */
  async start() {
    try {
      await this.#ask();
    } catch (error) {
      if (!(error instanceof Away) && error.status !== 401) {
        this.#leave();
        replace(this.main, problemBox(error, () => this.start()));
      }
      return;
    }
    await this.#route();
  }

  async #ask() {
    const { models, default: standard } = await this.api.json({ path: "/models" });
    const told = JSON.stringify(models);
    const changed = told !== this.told;
    if (changed && this.told !== undefined) this.#details.clear();
    this.told = told;
    this.flows = models;
    this.standard = standard;
    return changed;
  }

  /** The entry that the address names; without a name the default flow, or the first. */
  #chosen(state = this.state) {
    const flows = newest(this.flows);
    const name = state.model ?? this.standard ?? flows.find((flow) => flow.state === "ready")?.name ?? flows[0]?.name;
    if (state.version) return this.flows.find((flow) => flow.name === name && String(flow.version) === state.version) ?? null;
    return flows.find((flow) => flow.name === name) ?? null;
  }

  #kept() {
    const { model, version } = this.state;
    return { model, version };
  }

  async #route() {
    const turn = (this.#turn += 1);
    const view = viewOf(this.state.view);
    document.title = view.id === "flows" ? "Pushforward" : `${view.title} \u00b7 Pushforward`;
    this.#paintBar(view);
    this.#poll(view);
    const entry = view.needsFlow ? this.#chosen() : null;
    if (view.needsFlow && !this.#isUsable(view, entry)) return;
    const key = `${view.id} ${entry ? `${entry.name}/${entry.version}` : ""}`;
    if (key === this.#key && this.#mounted) {
      this.#mounted.update(this.state);
      return;
    }
    try {
      const [module, flow] = await Promise.all([view.load(), entry ? this.describe(entry) : null]);
      if (turn !== this.#turn) return;
      this.#leave();
      this.flow = flow;
      this.#key = key;
      this.#view = view;
      this.#mounted = module.mount(this.main, this);
      this.#mounted.update(this.state);
    } catch (error) {
      if (turn !== this.#turn || error instanceof Away || error.status === 401) return;
      if (error instanceof TypeError && !(await this.#answers())) {  // the module of a view did not come
        this.#isPartial = true;
        return;
      }
      this.#leave();
      replace(this.main, problemBox(error, () => this.#route()));
    }
  }

  /** Whether the server answers; where not, the page tries again until it does. */
  async #answers() {
    try {
      await this.api.call({ path: "/health/live" });
      return true;
    } catch {
      return false;
    }
  }

  /** Whether the view can show what is chosen; where not, the page says why. */
  #isUsable(view, entry) {
    const tell = (...children) => {
      this.#leave();
      replace(this.main, h("div.state", {}, children));
      return false;
    };
    if (!this.flows.length) return tell(h("h1", {}, "There is no flow here yet"), h("p", {}, "Put a bundle into the server's repository, and this page shows it."), h("a.button", { href: this.link("flows") }, "To the flows"));
    if (!entry) return tell(h("h1", {}, "No such flow"), h("p", {}, `The server has no flow ${this.state.model ?? ""}${this.state.version ? ` of version ${this.state.version}` : ""}.`), h("a.button", { href: writeAddress({ view: "flows" }) }, "To the flows"));
    if (entry.state !== "ready") {
      return tell(h("h1", {}, `${entry.name} is ${entry.state}`), entry.error
        ? h("p", {}, entry.error.detail)
        : h("p", {}, "This page goes on by itself as soon as it answers."));
    }
    const why = view.refuses?.(entry);
    return why ? tell(h("h1", {}, `${view.title} is not for ${entry.name}`), h("p", {}, why)) : true;
  }

  #leave() {
    this.#mounted?.unmount();
    this.#mounted = null;
    this.#key = "";
    this.flow = null;
  }

  /** Ask again for the flows, while that may change what is shown and somebody looks. */
  #poll(view) {
    clearTimeout(this.#timer);
    const entry = view.needsFlow ? this.#chosen() : null;
    const loading = this.flows.some((flow) => flow.state === "loading") || (entry && entry.state !== "ready");
    if (view.needsFlow && entry?.state === "ready") return;
    this.#timer = setTimeout(async () => {
      if (document.hidden || this.api.isAway) {
        this.#poll(view);
        return;
      }
      const changed = await this.#ask().catch(() => false);
      if (changed) await this.#route();
      else this.#poll(viewOf(this.state.view));
    }, loading ? LOADING_MS : POLL_MS);
  }

  #away() {
    this.#paintStatus("away");
    replace(this.notices, h("div.notice", {}, h("span.spin", { "aria-hidden": "true" }), h("p", {}, h("b", {}, "The server does not answer. "), "This page tries again every moment, and goes on when it is back.")));
  }

  async #back() {
    if (this.#isPartial) {
      location.reload();
      return;
    }
    this.#paintStatus("live");
    replace(this.notices);
    this.say("The server answers again.");
    this.#details.clear();
    this.#leave();
    await this.start();
  }

  #askKey(problem) {
    this.#leave();
    this.#paintStatus("key");
    const input = h("input", { type: "password", id: "key", autocomplete: "off", spellcheck: "false", required: true });
    const form = h("form.key", { onsubmit: (event) => {
      event.preventDefault();
      this.api.key = input.value.trim();
      replace(this.main, waiting("Asking the server for its flows\u2026"));
      this.#paintStatus("live");
      this.start();
    } },
    h("h1", {}, "This server asks for a key"), h("p", {}, problem.message),
    h("label", { for: "key" }, "Key"), input, h("button.button.primary", { type: "submit" }, "Go on"),
    h("p.note", {}, "It is kept in the memory of this page, and gone when the page is closed."));
    replace(this.main, form);
    input.focus();
  }

  #buildBar() {
    this.menu = h("nav.menu", { "aria-label": "Views" });
    this.links = VIEWS.map((view) => ({ view, node: h("a", {}, view.title) }));
    replace(this.menu, this.links.map((link) => link.node));
    this.picker = select({ label: "Flow", value: "", options: [], compact: true, change: (value) => this.#pick(value) });
    this.status = h("span.status", { role: "img" });
    this.themeButton = h("button.icon", { type: "button", onclick: () => choose(isDark() ? "light" : "dark") });
    const paintTheme = () => {
      const dark = isDark();
      this.themeButton.setAttribute("aria-label", dark ? "Light theme" : "Dark theme");
      replace(this.themeButton, dark ? sun() : moon());
    };
    onTheme(paintTheme);
    paintTheme();
    replace(document.getElementById("bar"),
      h("a.brand", { href: "#/flows", "aria-label": "Pushforward" }, mark(), h("span", {}, "Pushforward")),
      this.menu, h("div.bar-end", {}, this.picker.node, this.status, h("a.quiet", { href: new URL("docs", this.api.root).href }, "API"), this.themeButton));
    this.#paintStatus("live");
  }

  #pick(value) {
    const [name, version] = value.split("/");
    const flow = newest(this.flows).find((each) => each.name === name);
    const kept = flow && String(flow.version) === version ? null : version;
    this.go(viewOf(this.state.view).id, { model: name, version: kept });
  }

  #paintBar(view) {
    this.#paintLinks();
    for (const link of this.links) {
      if (link.view === view) {
        link.node.setAttribute("aria-current", "page");
        this.#reveal(link.node);
      } else link.node.removeAttribute("aria-current");
    }
    this.picker.node.hidden = !view.needsFlow;
    if (!view.needsFlow) return;
    const several = new Set(this.flows.map((flow) => flow.name).filter((name, k, all) => all.indexOf(name) !== k));
    this.picker.fill(this.flows.map((flow) => ({
      value: `${flow.name}/${flow.version}`,
      label: `${flow.name}${several.has(flow.name) ? ` ${flow.version}` : ""}${flow.state === "ready" ? "" : ` (${flow.state})`}`,
      disabled: flow.state === "ready" && Boolean(view.refuses?.(flow)),
    })));
    const entry = this.#chosen();
    if (entry) this.picker.set(`${entry.name}/${entry.version}`);
  }

  /** On a phone the menu is wider than the screen. `scrollIntoView` would make Tab begin behind the link. */
  #reveal(link) {
    const [shown, frame] = [link, this.menu].map((node) => node.getBoundingClientRect());
    this.menu.scrollLeft += Math.min(0, shown.left - frame.left) + Math.max(0, shown.right - frame.right);
  }

  #paintLinks() {
    for (const { view, node } of this.links) node.setAttribute("href", this.link(view.id));
  }

  #paintStatus(state) {
    const words = { live: "The server answers", away: "The server does not answer", key: "The server asks for a key" };
    this.status.dataset.state = state;
    this.status.setAttribute("aria-label", words[state]);
    this.status.title = words[state];
  }
}

const mark = () => svg("svg", { viewBox: "0 0 32 32", "aria-hidden": "true", class: "mark" },
  svg("path", { d: "M2 26c7 0 7-16 11-16s3 9 6 9 3-6 5-6 3 13 6 13z", class: "mark-data" }),
  svg("path", { d: "M2 26c7 0 9-9 14-9s7 9 14 9z", class: "mark-latent" }));
const sun = () => svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("circle", { cx: 12, cy: 12, r: 4.5 }),
  svg("path", { d: "M12 2v3M12 19v3M2 12h3M19 12h3M5 5l2 2M17 17l2 2M19 5l-2 2M7 17l-2 2" }));
const moon = () => svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: "M20 14.500A8.500 8.500 0 0 1 9.500 4a8.500 8.500 0 1 0 10.500 10.500z" }));

new App().start();
