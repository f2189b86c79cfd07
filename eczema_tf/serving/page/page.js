// @ts-check
/**
 * What the page does. Photos and text stay here. They go to the server only to show a photo as the
 * model will see it (page/preview) and to get an answer (page/answer).
 */

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
function find(id, kind) {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new TypeError(`#${id} is not a ${kind.name}`);
  return element;
}

const slots = [...find("previews", HTMLElement).children].map((slot) => ({
  slot: /** @type {HTMLElement} */ (slot),
  preview: /** @type {HTMLImageElement} */ (slot.querySelector("img")),
  remove: /** @type {HTMLButtonElement} */ (slot.querySelector("button")),
}));
const sources = ["upload", "camera", "paste"].map((id) => find(id, HTMLButtonElement));
const drop = find("drop", HTMLButtonElement);
const file = find("file", HTMLInputElement);
const phoneCamera = find("phone-camera", HTMLInputElement);
const fault = find("fault", HTMLElement);
const text = find("text", HTMLTextAreaElement);
const fields = document.forms.namedItem("fields"); // null if the model takes no clinical fields
const status = find("status", HTMLElement);
const result = find("result", HTMLElement);
const dialog = find("camera-dialog", HTMLDialogElement);
const video = find("video", HTMLVideoElement);
const shoot = find("shoot", HTMLButtonElement);
const maxPhotoBytes = Number(document.body.dataset.maxPhotoBytes);
const nothingYet = result.innerHTML;

/** @type {Blob[]} upright JPEGs of one case, from page/preview */
let photos = [];
let photoRefused = false;
/** @type {Promise<unknown>} settles when all photos that were chosen have been read */
let photosRead = Promise.resolve();
let reading = new AbortController();
let asking = new AbortController();

// Talking to the server.

/**
 * Posts to the server. Whatever goes wrong becomes an error with a message for people.
 * @param {string} path
 * @param {BodyInit} body
 * @param {AbortSignal} signal
 * @returns {Promise<Response>}
 */
async function post(path, body, signal) {
  const type = typeof body === "string" ? "application/json" : "application/octet-stream";
  const headers = { "Content-Type": type };
  const response = await fetch(path, { method: "POST", headers, body, signal }).catch(() => {
    throw new Error("the server cannot be reached; is it still running?");
  });
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  const isKnown = error && response.status !== 500;
  throw new Error(isKnown ? error : "something went wrong on the server; try again");
}

/**
 * Fills one of the page's templates for what went wrong.
 * @param {"fault-parts" | "failure-parts"} id
 * @param {unknown} error
 */
function explainFault(id, error) {
  const message = error instanceof Error ? error.message : String(error);
  const end = /[.?!]$/.test(message) ? "" : ".";
  const sentence = message[0].toUpperCase() + message.slice(1) + end;
  const parts = document.importNode(find(id, HTMLTemplateElement).content, true);
  parts.querySelector(".fault")?.replaceChildren(sentence);
  return parts;
}

/**
 * @param {Blob} blob
 * @returns {Promise<string>} its bytes in base64
 */
function toBase64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).split(",")[1]);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

// The photos.

/** @param {Blob[]} kept the photos to show and to ask about */
function setPhotos(kept) {
  photos = kept;
  for (const [number, { slot, preview }] of slots.entries()) {
    URL.revokeObjectURL(preview.src);
    slot.hidden = number >= photos.length;
    preview.src = slot.hidden ? "" : URL.createObjectURL(photos[number]);
  }
  drop.hidden = photos.length > 0;
  for (const source of sources) source.disabled = photos.length >= slots.length;
}

/** Removes all photos, any messages about them, and whatever is still being read. */
function removePhotos() {
  reading.abort();
  reading = new AbortController();
  setPhotos([]);
  forgetFaults();
}

function forgetFaults() {
  photoRefused = false;
  fault.replaceChildren();
  status.textContent = "";
}

/** @param {number} number of the photo to remove, from 0 */
function removePhoto(number) {
  stopAsking(); // the question included this photo
  setPhotos(photos.filter((_, place) => place !== number));
  forgetFaults();
  (photos.length ? slots[0].remove : drop).focus();
}

/** @param {Iterable<Blob | null | undefined>} chosen any files: the server says what can be used */
function choosePhotos(chosen) {
  const files = [...chosen].filter((file) => file instanceof Blob);
  if (!files.length) return;
  forgetFaults();
  photosRead = Promise.all([photosRead, readPhotos(files)]);
}

/** @param {Blob[]} files read one after another, to keep the order in which they were chosen */
async function readPhotos(files) {
  for (const file of files) await readPhoto(file);
}

/** @param {Blob} chosen */
async function readPhoto(chosen) {
  const { signal } = reading;
  status.textContent = "Reading the photo";
  try {
    if (chosen.size > maxPhotoBytes) {
      throw new Error(`photo is larger than ${maxPhotoBytes / 1e6} MB: choose a smaller one`);
    }
    const bytes = await chosen.arrayBuffer().catch(() => {
      throw new Error("the file can no longer be read; is it still there?");
    });
    const response = await post("page/preview", bytes, signal);
    addPhoto(await response.blob());
    status.textContent = "The photo is ready";
  } catch (error) {
    if (signal.aborted) return; // started over
    photoRefused = true;
    status.textContent = "";
    fault.append(explainFault("fault-parts", error));
  }
}

/** @param {Blob} jpeg */
function addPhoto(jpeg) {
  if (photos.length >= slots.length) {
    throw new Error(`at most ${slots.length} photos are allowed: remove one first`);
  }
  const bytes = photos.reduce((sum, { size }) => sum + size, jpeg.size);
  if (bytes > maxPhotoBytes) {
    throw new Error(`together, the photos are larger than ${maxPhotoBytes / 1e6} MB: leave one out`);
  }
  setPhotos([...photos, jpeg]);
}

/** Opens a phone's own camera app; on any other machine, shows the camera in a dialog. */
async function openCamera() {
  const isPhone = matchMedia("(hover: none) and (pointer: coarse)").matches;
  if (isPhone || !navigator.mediaDevices) return phoneCamera.click();
  dialog.showModal();
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: true });
    stopCamera(); // one left over from a dialog that was closed before the browser had asked
    video.srcObject = stream;
    if (!dialog.open) stopCamera(); // closed while the browser asked for permission
  } catch {
    dialog.close();
    const message = "the camera cannot be used: allow it in the browser, or choose a photo instead";
    fault.replaceChildren(explainFault("fault-parts", message));
  }
}

function takePhoto() {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d")?.drawImage(video, 0, 0);
  canvas.toBlob((photo) => choosePhotos([photo]), "image/jpeg", 0.95);
  dialog.close();
}

function stopCamera() {
  shoot.disabled = true;
  const stream = /** @type {MediaStream | null} */ (video.srcObject);
  for (const track of stream?.getTracks() ?? []) track.stop();
  video.srcObject = null;
}

/** Pastes when the button is clicked: the browser asks for permission. Ctrl+V needs none. */
async function pastePhoto() {
  try {
    for (const item of await navigator.clipboard.read()) {
      const type = item.types.find((name) => name.startsWith("image/"));
      if (type) return choosePhotos([await item.getType(type)]);
    }
    throw new Error("there is no photo on the clipboard");
  } catch {
    const message = "no photo could be pasted: copy one, allow it in the browser, or press Ctrl+V";
    fault.replaceChildren(explainFault("fault-parts", message));
  }
}

// Question and answer.

/** Sends photos and text, shows the answer or why there is none, and moves the focus there. */
async function ask() {
  if (fields?.reportValidity() === false) return; // the browser says which field is not a number
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  result.ariaBusy = "true";
  try {
    await photosRead;
    status.textContent = "Asking";
    const encoded = await Promise.all(photos.map(toBase64));
    const image = encoded.map((b64) => ({ b64 }));
    const row = { image, text: text.value, ...(fields && { clinical: joinFields(fields) }) };
    const signature_name = fields ? "clinical" : "serving_default";
    const body = JSON.stringify({ signature_name, instances: [row] });
    const response = await post(`page/answer?photo_refused=${photoRefused}`, body, signal);
    result.innerHTML = await response.text(); // the server has escaped what users wrote
  } catch (error) {
    if (signal.aborted) return; // asked again, or started over
    result.replaceChildren(explainFault("failure-parts", error));
  }
  status.textContent = "";
  result.ariaBusy = "false";
  find("answer-title", HTMLElement).focus();
}

/**
 * @param {HTMLFormElement} form
 * @returns {string} the filled-in fields, as the signature takes them: "age=34; sex=female"
 */
function joinFields(form) {
  const known = [...new FormData(form)].filter(([, value]) => value);
  return known.map(([name, value]) => `${name}=${value}`).join("; ");
}

function stopAsking() {
  asking.abort();
  status.textContent = "";
  result.ariaBusy = "false";
}

function startOver() {
  stopAsking();
  removePhotos();
  fields?.reset();
  text.value = "";
  result.innerHTML = nothingYet;
}

/** @param {DOMStringMap} example `photo` is an address, or "" for none */
async function tryExample({ photo: address, text: words }) {
  removePhotos();
  fields?.reset();
  text.value = words ?? "";
  const { signal } = reading;
  const response = address ? await fetch(address, { signal }).catch(() => null) : null;
  if (signal.aborted) return;
  if (response?.ok) choosePhotos([await response.blob()]);
  await ask();
}

/** Sets the heatmaps' opacity from the slider, which every new answer replaces. */
function fadeHeatmap(/** @type {Event} */ { target: slider }) {
  if (!(slider instanceof HTMLInputElement) || slider.id !== "opacity") return;
  for (const heatmap of result.querySelectorAll(".heat .map")) {
    if (heatmap instanceof HTMLElement) heatmap.style.opacity = String(slider.valueAsNumber / 100);
  }
  result.querySelector("output[for=opacity]")?.replaceChildren(`${slider.value}%`);
}

// What is clicked, chosen, typed, pasted and dropped.

/** @type {Record<string, () => unknown>} by id */
const clicks = {
  drop: () => file.click(),
  upload: () => file.click(),
  camera: openCamera,
  shoot: takePhoto,
  cancel: () => dialog.close(),
  paste: pastePhoto,
  ask,
  clear: startOver,
};
for (const [id, act] of Object.entries(clicks)) {
  find(id, HTMLButtonElement).addEventListener("click", act);
}
for (const [number, { remove }] of slots.entries()) {
  remove.addEventListener("click", () => removePhoto(number));
}
for (const button of find("examples", HTMLElement).querySelectorAll("button")) {
  button.addEventListener("click", () => tryExample(button.dataset));
}
for (const input of [file, phoneCamera]) {
  input.addEventListener("change", () => {
    choosePhotos(input.files ?? []);
    input.value = ""; // so that the same file can be chosen again
  });
}
video.addEventListener("loadeddata", () => {
  shoot.disabled = false;
  shoot.focus();
});
dialog.addEventListener("close", stopCamera);
result.addEventListener("input", fadeHeatmap);
text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey || event.shiftKey)) return;
  event.preventDefault();
  ask();
});
fields?.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
document.addEventListener("paste", ({ clipboardData }) => {
  if (!clipboardData?.getData("text")) choosePhotos(clipboardData?.files ?? []);
});
for (const name of /** @type {const} */ (["dragover", "drop"])) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault(); // otherwise the browser leaves the page and opens the file
    if (name === "drop") choosePhotos(event.dataTransfer.files);
  });
}
