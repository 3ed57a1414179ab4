// Opens a page in the Chromium that unpack.mjs unpacked: `node look.mjs PLACE URL PICTURES`. Looks at it on a desk and on a phone,
// by day and by night, keeps a picture of each in the folder PICTURES, and prints what it saw as JSON.
import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";

const place = path.resolve(process.argv[2]);
const [url, pictures] = process.argv.slice(3);
const WIDTHS = [1280, 390];
const SCHEMES = ["light", "dark"];

const profile = fs.mkdtempSync(path.join(os.tmpdir(), "browser-"));
const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-zygote"];
const browser = spawn(path.join(place, "chromium"), [...flags, "--remote-debugging-pipe", `--user-data-dir=${profile}`], {
  stdio: ["ignore", "ignore", "inherit", "pipe", "pipe"],
  env: { ...process.env, LD_LIBRARY_PATH: path.join(place, "lib"), FONTCONFIG_FILE: path.join(place, "fonts.conf") },
});
process.on("exit", () => {
  browser.kill("SIGKILL");
  fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
});
browser.on("exit", (code, signal) => {
  console.error(`the browser ended: ${code ?? signal}`);
  process.exit(1);
});
setTimeout(() => {
  console.error("the browser does not answer");
  process.exit(1);
}, 60_000).unref();

// Commands and answers are JSON with a NUL behind each.
const [commands, answers] = [browser.stdio[3], browser.stdio[4]];
const asked = new Map();
let onLoad = () => {};
let number = 0;
let rest = "";
answers.setEncoding("utf8").on("data", (text) => {
  const messages = (rest + text).split("\0");
  rest = messages.pop();
  for (const { id, method, result, error } of messages.map((message) => JSON.parse(message))) {
    if (method === "Page.loadEventFired") onLoad();
    if (id === undefined) continue;
    const [answer, fail] = asked.get(id);
    error ? fail(new Error(error.message)) : answer(result);
  }
});
const send = (sessionId, method, params = {}) =>
  new Promise((...settle) => {
    asked.set(++number, settle);
    commands.write(`${JSON.stringify({ id: number, sessionId, method, params })}\0`);
  });

// What stands out at the right of its box; what is cut off there on purpose; and all that can be read.
const LOOK = `(() => {
  const name = (element) => element.tagName.toLowerCase() + (element.className ? "." + element.className : "");
  const stands_out = (element) => element.scrollWidth > element.clientWidth && getComputedStyle(element).display !== "inline";
  const is_cut = (element) => getComputedStyle(element).textOverflow === "ellipsis";
  const boxes = [document.documentElement, ...document.querySelectorAll("body, body *")].filter(stands_out);
  const names = (boxes) => [...new Set(boxes.map(name))];
  const [cut, sideways] = [boxes.filter(is_cut), boxes.filter((box) => !is_cut(box))];
  return { text: document.body.innerText, sideways: names(sideways), cut: names(cut) };
})()`;

const { targetId } = await send(undefined, "Target.createTarget", { url: "about:blank" });
const { sessionId } = await send(undefined, "Target.attachToTarget", { targetId, flatten: true });
const page = (method, params) => send(sessionId, method, params);
await page("Page.enable");

async function look(width, scheme) {
  await page("Emulation.setDeviceMetricsOverride", { width, height: 800, deviceScaleFactor: 1, mobile: width < 600 });
  await page("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
  const loaded = new Promise((resolve) => (onLoad = resolve));
  await page("Page.navigate", { url });
  await loaded;
  const { result } = await page("Runtime.evaluate", { expression: LOOK, returnByValue: true });
  const { data } = await page("Page.captureScreenshot", { captureBeyondViewport: true });
  const picture = path.join(pictures, `page-${width}-${scheme}.png`);
  fs.writeFileSync(picture, Buffer.from(data, "base64"));
  return { width, scheme, picture, ...result.value };
}

fs.mkdirSync(pictures, { recursive: true });
const seen = [];
for (const width of WIDTHS) {
  for (const scheme of SCHEMES) seen.push(await look(width, scheme));
}
console.log(JSON.stringify(seen));
process.exit(0);
