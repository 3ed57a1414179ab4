// Unpacks the Chromium of an npm package: `node unpack.mjs PLACE`, where PLACE has its node_modules. It needs nothing of the
// machine but libc. A machine that it is not built for gets none, and is told so.
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import zlib from "node:zlib";

const place = path.resolve(process.argv[2]);
const packed = path.join(place, "node_modules/@sparticuz/chromium/bin");
const browser = path.join(place, "chromium");

if (process.platform !== "linux" || process.arch !== "x64") {
  console.error(`NOT CHECKED: the page in a browser; there is none here for ${process.platform} on ${process.arch}`);
  process.exit(0);
}
const open = (name) => zlib.brotliDecompressSync(fs.readFileSync(path.join(packed, `${name}.br`)));
fs.writeFileSync(browser, open("chromium"), { mode: 0o755 });
for (const name of ["al2023.tar", "fonts.tar"]) {
  execFileSync("tar", ["-x", "-C", place], { input: open(name) });
}
// Fonts of the machine, if it has any, and those of the package.
const folders = ["/usr/share/fonts", path.join(place, "fonts")].map((folder) => `<dir>${folder}</dir>`).join("");
const cache = `<cachedir>${path.join(place, "font-cache")}</cachedir>`;
fs.writeFileSync(path.join(place, "fonts.conf"), `<?xml version="1.0"?><fontconfig>${folders}${cache}</fontconfig>\n`);
fs.rmSync(path.join(place, "node_modules"), { recursive: true });
