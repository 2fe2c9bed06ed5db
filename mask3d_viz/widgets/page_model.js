// A model for a widget on a page without a kernel: the part of anywidget's interface that our views use.
// Bytes are DataViews, as anywidget gives them.

export class PageModel {
  constructor(values) {
    this.values = { ...values };
    this.listeners = new Map();
    this.pending = new Set();
    this.comm_live = true;
  }

  get(name) {
    return this.values[name];
  }

  set(name, value) {
    if (this.values[name] === value) return;
    this.values[name] = value;
    this.pending.add(name);
    this.emit(`change:${name}`, this, value);
    this.emit("change", this);
  }

  save_changes() {
    const names = [...this.pending];
    this.pending.clear();
    if (names.length) this.emit("saved", Object.fromEntries(names.map((name) => [name, this.values[name]])));
  }

  send(content) {
    this.emit("sent", content);
  }

  on(events, callback) {
    for (const event of events.split(" ")) {
      if (!this.listeners.has(event)) this.listeners.set(event, new Set());
      this.listeners.get(event).add(callback);
    }
  }

  off(events, callback) {
    if (!events) return this.listeners.clear();
    for (const event of events.split(" ")) {
      if (callback) this.listeners.get(event)?.delete(callback);
      else this.listeners.delete(event);
    }
  }

  emit(event, ...values) {
    for (const callback of [...(this.listeners.get(event) ?? [])]) callback(...values);
  }
}
