// What readers of screens and keyboards need and the theme leaves out: a name of the search, wide tables and code that arrows scroll.
const mend = () => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex]), pre > code:not([tabindex])").forEach(one => { one.tabIndex = 0; });
};
new MutationObserver(mend).observe(document.body, {childList: true, subtree: true});
mend();
