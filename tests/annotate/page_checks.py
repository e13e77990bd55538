"""What every page must be at both widths, light and dark; with LITECHEX_SCREENSHOTS=FOLDER also pictures of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


def look(url: str, name: str, keys: list[str], person: Any, then: list[str] | None = None) -> None:
    """Each page at both widths, light and dark: it fits, every control has a name, text has contrast."""
    folder = os.environ.get("LITECHEX_SCREENSHOTS")
    reader = person(url, "Reader")
    for size in (WIDE, NARROW):
        reader.page.set_viewport_size(size)
        for scheme in ("light", "dark"):
            reader.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            reader.page.reload()
            reader.page.wait_for_selector("#report-title")
            reader.press(*keys)
            fits(reader, name)
            assert reader.page.evaluate(_UNNAMED) == []
            assert reader.page.evaluate(_LOW_CONTRAST) == []
            if folder:
                reader.page.screenshot(path=Path(folder) / f"annotate-{name}-{size['width']}-{scheme}.png")
            reader.press(*(then or []))
            fits(reader, name)


def fits(reader: Any, name: str) -> None:
    width, room = reader.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= room, f"{name} is {width} px wide"
    wide = """[...document.querySelectorAll('main *')].filter((n) => n.getBoundingClientRect().right > innerWidth)
        .map((n) => n.outerHTML.slice(0, 80))"""
    assert reader.page.evaluate(wide) == []


# Controls without a name for a screen reader.
_UNNAMED = """[...document.querySelectorAll('button, select, textarea, input, progress')].filter((node) => {
  const labels = node.labels && [...node.labels].map((l) => l.textContent).join('');
  const named = node.getAttribute('aria-label') || node.getAttribute('aria-labelledby');
  return !(node.textContent.trim() || named || labels);
}).map((node) => node.outerHTML)"""

# Visible text whose contrast to its background is below WCAG's 4.5:1.
_LOW_CONTRAST = """(() => {
  const parse = (text) => (text.match(/[0-9.]+/g) || []).map(Number);
  const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (node) => {
    for (let n = node; n; n = n.parentElement) {
      const c = parse(getComputedStyle(n).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const box = node.getBoundingClientRect();
    if (!own || box.width < 2 || box.height < 2 || node.disabled || node.closest('option, noscript, dialog')) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) low.push(`${node.tagName}.${node.className} ${ratio.toFixed(2)} ${node.textContent.slice(0, 30)}`);
  }
  return low;
})()"""
