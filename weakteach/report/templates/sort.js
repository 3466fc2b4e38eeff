// Sorts the pairs of a section by a number; again, the other way round. Without it they stand as written.
for (const bar of document.querySelectorAll(".sort")) {
  bar.hidden = false;
  const list = document.getElementById(bar.dataset.list);
  for (const button of bar.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const down = button.dataset.order !== "down";
      for (const other of bar.querySelectorAll("button")) {
        other.dataset.order = "";
        other.setAttribute("aria-pressed", "false");
        other.textContent = other.dataset.label;
      }
      button.dataset.order = down ? "down" : "up";
      button.setAttribute("aria-pressed", "true");
      button.textContent = button.dataset.label + (down ? " ↓" : " ↑");
      const of = (item) => {
        const value = parseFloat(item.dataset[button.dataset.by]);
        return Number.isNaN(value) ? -Infinity : down ? value : -value;
      };
      list.append(...[...list.children].sort((a, b) => of(b) - of(a)));
    });
  }
}
