() => {
  // While a new drawing of a picture loads, gradio does not know the picture's size and drops a click on it: the click waits for the drawing.
  window.addEventListener("click", (click) => {
    const picture = click.target.closest?.(".image-frame")?.querySelector("img");
    if (!picture || picture.naturalWidth) return;
    click.stopImmediatePropagation();
    picture.addEventListener("load", () => click.target.dispatchEvent(new MouseEvent("click", click)), { once: true });
  }, true);
}
