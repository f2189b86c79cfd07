// @ts-check
/**
 * What the page does. Photo and text stay here; they go to the server when a photo is to be shown
 * as the model will see it (page/preview) and when an answer is asked for (page/answer).
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

const preview = find("preview", HTMLImageElement);
const drop = find("drop", HTMLButtonElement);
const remove = find("remove", HTMLButtonElement);
const file = find("file", HTMLInputElement);
const phoneCamera = find("phone-camera", HTMLInputElement);
const fault = find("fault", HTMLElement);
const text = find("text", HTMLTextAreaElement);
const status = find("status", HTMLElement);
const result = find("result", HTMLElement);
const dialog = find("camera-dialog", HTMLDialogElement);
const video = find("video", HTMLVideoElement);
const shoot = find("shoot", HTMLButtonElement);
const maxPhotoBytes = Number(document.body.dataset.maxPhotoBytes);
const nothingYet = result.innerHTML;

/** @type {Blob | null} an upright JPEG, from page/preview */
let photo = null;
let photoRefused = false;
/** @type {Promise<void>} settles when the photo that was chosen last has been read */
let photoRead = Promise.resolve();
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
  const sentence = message[0].toUpperCase() + message.slice(1) + (message.endsWith(".") ? "" : ".");
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

// The photo.

/** @param {Blob | null} jpeg what is asked about and shown; null for none */
function setPhoto(jpeg) {
  URL.revokeObjectURL(preview.src);
  photo = jpeg;
  preview.src = jpeg ? URL.createObjectURL(jpeg) : "";
  preview.hidden = remove.hidden = !jpeg;
  drop.hidden = Boolean(jpeg);
}

/** Takes the photo away, and whatever was said of it or is under way. */
function removePhoto() {
  reading.abort();
  reading = new AbortController();
  setPhoto(null);
  photoRefused = false;
  fault.replaceChildren();
  status.textContent = "";
}

/** @param {Blob | null | undefined} chosen any file: the server says whether it can be used */
function choosePhoto(chosen) {
  if (chosen) photoRead = readPhoto(chosen);
}

/** @param {Blob} chosen */
async function readPhoto(chosen) {
  removePhoto();
  const { signal } = reading;
  status.textContent = "Reading the photo";
  try {
    if (chosen.size > maxPhotoBytes) {
      throw new Error(`photo is larger than ${maxPhotoBytes / 1e6} MB: choose a smaller one`);
    }
    const response = await post("page/preview", chosen, signal);
    setPhoto(await response.blob());
    status.textContent = "The photo is ready";
  } catch (error) {
    if (signal.aborted) return; // another photo was chosen
    photoRefused = true;
    fault.replaceChildren(explainFault("fault-parts", error));
  }
}

/** Opens a phone's own camera, or that of any other machine in a dialog. */
async function openCamera() {
  const isPhone = matchMedia("(hover: none) and (pointer: coarse)").matches;
  if (isPhone || !navigator.mediaDevices) return phoneCamera.click();
  dialog.showModal();
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: true });
    if (!dialog.open) stopCamera(); // closed while the browser asked whether it may be used
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
  canvas.toBlob(choosePhoto, "image/jpeg", 0.95);
  dialog.close();
}

function stopCamera() {
  shoot.disabled = true;
  const stream = /** @type {MediaStream | null} */ (video.srcObject);
  for (const track of stream?.getTracks() ?? []) track.stop();
  video.srcObject = null;
}

/** Pastes by the button, which the browser asks about; Ctrl+V works without asking. */
async function pastePhoto() {
  try {
    for (const item of await navigator.clipboard.read()) {
      const type = item.types.find((name) => name.startsWith("image/"));
      if (type) return choosePhoto(await item.getType(type));
    }
    throw new Error("there is no photo on the clipboard");
  } catch {
    const message = "no photo could be pasted: copy one, allow it in the browser, or press Ctrl+V";
    fault.replaceChildren(explainFault("fault-parts", message));
  }
}

// Question and answer.

/** Asks about photo and text, shows the answer or why there is none, and moves the focus there. */
async function ask() {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  result.ariaBusy = "true";
  try {
    await photoRead;
    status.textContent = "Asking";
    const image = photo ? { b64: await toBase64(photo) } : "";
    const body = JSON.stringify({ instances: [{ image, text: text.value }] });
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

function startOver() {
  asking.abort();
  removePhoto();
  text.value = "";
  result.innerHTML = nothingYet;
  result.ariaBusy = "false";
}

/** @param {DOMStringMap} example `photo` is an address, or "" for none */
async function tryExample({ photo: address, text: words }) {
  removePhoto();
  text.value = words ?? "";
  const { signal } = reading;
  const response = address ? await fetch(address, { signal }).catch(() => null) : null;
  if (signal.aborted) return;
  choosePhoto(response && (await response.blob()));
  await ask();
}

/** Moves the heatmap's opacity with its slider; the answer is written anew each time. */
function fadeHeatmap(/** @type {Event} */ { target: slider }) {
  if (!(slider instanceof HTMLInputElement) || slider.id !== "opacity") return;
  const heatmap = result.querySelector(".heat .map");
  if (heatmap instanceof HTMLElement) heatmap.style.opacity = String(slider.valueAsNumber / 100);
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
  remove: () => (removePhoto(), drop.focus()),
  ask,
  clear: startOver,
};
for (const [id, act] of Object.entries(clicks)) {
  find(id, HTMLButtonElement).addEventListener("click", act);
}
for (const button of find("examples", HTMLElement).querySelectorAll("button")) {
  button.addEventListener("click", () => tryExample(button.dataset));
}
for (const input of [file, phoneCamera]) {
  input.addEventListener("change", () => {
    choosePhoto(input.files?.[0]);
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
document.addEventListener("paste", ({ clipboardData }) => {
  if (!clipboardData?.getData("text")) choosePhoto(clipboardData?.files[0]);
});
for (const name of /** @type {const} */ (["dragover", "drop"])) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault(); // else the browser leaves the page and opens the file
    if (name === "drop") choosePhoto(event.dataTransfer.files[0]);
  });
}
