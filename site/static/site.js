"use strict";
// What must be moved sideways to be read can be reached by the keyboard.
function reachable() {
  for (const part of document.querySelectorAll("pre, .table-wrapper, .text_html, .math")) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
    else part.removeAttribute("tabindex");
  }
}

// A link to a term of the glossary shows its definition; Escape puts it away.
function define() {
  const box = document.createElement("div");
  [box.className, box.id, box.role, box.hidden] = ["definition", "definition", "tooltip", true];
  document.body.append(box);
  const hide = () => (box.hidden = true);
  for (const link of document.querySelectorAll("[data-definition]")) {
    const show = () => {
      box.textContent = link.dataset.definition;
      box.hidden = false;
      const { left, bottom } = link.getBoundingClientRect();
      box.style.left = `${Math.max(8, Math.min(left, innerWidth - box.offsetWidth - 8))}px`;
      box.style.top = `${bottom + 4}px`;
    };
    link.setAttribute("aria-describedby", "definition");
    for (const name of ["mouseenter", "focus"]) link.addEventListener(name, show);
    for (const name of ["mouseleave", "blur"]) link.addEventListener(name, hide);
  }
  addEventListener("scroll", hide);
  addEventListener("keydown", ({ key }) => key === "Escape" && hide());
}

addEventListener("DOMContentLoaded", reachable);
addEventListener("DOMContentLoaded", define);
addEventListener("resize", reachable);
