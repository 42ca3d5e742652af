// Dark or light, before anything is painted, and what else a browser keeps.

/** What a browser keeps; some keep nothing, and say so by throwing. */
export function kept(name, value) {
  try {
    if (value !== undefined) localStorage.setItem(name, value);
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function applyTheme(theme) {
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
}

export function toggleTheme() {
  const dark = (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark")) === "dark";
  applyTheme(dark ? "light" : "dark");
  kept("edge-theme", dark ? "light" : "dark");
}

applyTheme(kept("edge-theme"));
