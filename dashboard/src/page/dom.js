// The few lines of DOM work that the other files share. Text always goes in as
// text: nothing that a node says about itself is ever parsed as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name === "class") element.setAttribute("class", value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((c) => c !== null && c !== undefined));
  return element;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** Sets text only when it changes, so that selections and readers are left in peace. */
export function text(element, value) {
  const string = String(value);
  if (element.textContent !== string) element.textContent = string;
}

export function attribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** Keeps `parent`'s children in the order of `items`, making and dropping as needed. */
export function keyed(parent, items, key, make, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const id = String(key(item));
    let child = old.get(id);
    if (child) {
      old.delete(id);
    } else {
      child = make(item);
      child.dataset.key = id;
    }
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
    update?.(child, item);
  }
  for (const child of old.values()) child.remove();
}

/** A bar that fills; grows evenly, falls back at once. */
export function bar(element, value, mark) {
  const now = Math.max(0, Math.min(1, value || 0));
  const was = Number(element.dataset.v ?? 0);
  element.dataset.v = now;
  element.className = [mark ?? "", now < was ? "back" : ""].join(" ").trim();
  element.style.setProperty("--v", now.toFixed(4));
}
