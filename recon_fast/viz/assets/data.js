"use strict";
// The wall of `recon-fast inspect`: thumbnails that are drawn when they come into view.
function addWall({ names, captions, classes, thumbnails }) {
  const points = unpack(thumbnails), count = thumbnails.shape[1];
  const draws = new Map(), visible = new Set();
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) { visible.add(target); draws.get(target)(); } else visible.delete(target);
    }
  }, { rootMargin: "200px" });
  const cards = names.map((name, i) => {
    const card = make("figure", undefined, { class: "card" });
    const text = [name, classes && classes[i], captions && captions[i]].filter(Boolean);
    const canvas = make("canvas", undefined, { role: "img", "aria-label": text.join("; ") });
    card.append(canvas, make("figcaption", text.slice(0, 2).join("; ")));
    if (text.length > 2 || captions) card.title = text.join("; ");
    draws.set(canvas, turnable(canvas, points, i, count));
    watch.observe(canvas);
    return card;
  });
  byId("wall").append(...cards);
  const kinds = classes ? [...new Set(classes)].sort() : [];
  byId("class").append(make("option", "all"), ...kinds.map((name) => make("option", name)));
  if (kinds.length < 2) byId("class").closest("label").hidden = true;
  byId("class").addEventListener("change", (event) => {
    const all = event.target.selectedIndex === 0;
    cards.forEach((card, i) => { card.hidden = !all && classes[i] !== event.target.value; });
  });
  onThemeChange(() => visible.forEach((canvas) => draws.get(canvas)()));
}

if (byId("wall")) addWall(pageData);
document.documentElement.dataset.ready = "yes";
