// The heatmap's slider: listened to on the document, since the answer is written anew each time.
document.addEventListener("input", (event) => {
  if (event.target.id !== "opacity") return;
  const percent = event.target.value;
  event.target.closest("section").querySelector(".map").style.opacity = percent / 100;
  event.target.parentElement.querySelector("output").value = `${percent}%`;
});
