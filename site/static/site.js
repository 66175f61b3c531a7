"use strict";
// What must be moved sideways to be read can be reached by the keyboard.
function reachable() {
  for (const part of document.querySelectorAll("pre, .table-wrapper, .text_html, .math")) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
    else part.removeAttribute("tabindex");
  }
}
addEventListener("DOMContentLoaded", reachable);
addEventListener("resize", reachable);
