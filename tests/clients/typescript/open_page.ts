// Serves the page of `browser.ts` to a headless Chromium, and prints what the page told.
//
//   open_page.js ORIGIN FOLDER grpc-web|connect PROJECT
//
// The page believes to come from ORIGIN: the browser is told to find it at the port that was free.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";

const [origin = "", folder = "", protocol = "", project = ""] = process.argv.slice(2);
const { PAVIOR_SERVER: server, PAVIOR_ORGANIZATION: organization, PAVIOR_TOKEN: token, PAVIOR_AUDITOR_TOKEN: auditorToken } = process.env;

const pages = createServer(async (request, response) => {
  switch (request.url) {
    case "/":
      response.setHeader("Content-Type", "text/html").end(`<!doctype html><body><script type="module" src="/browser.js"></script>`);
      break;
    case "/browser.js":
      response.setHeader("Content-Type", "text/javascript").end(await readFile(join(folder, "browser.js")));
      break;
    case "/job.json":
      response.end(JSON.stringify({ protocol, server, organization, project, token, auditorToken }));
      break;
    case "/told":
      pages.emit("told", await text(request));
      response.end();
      break;
    default:
      response.writeHead(404).end();
  }
});
await once(pages.listen(0, "127.0.0.1"), "listening");
const { port } = pages.address() as AddressInfo;

const profile = await mkdtemp(join(tmpdir(), "pavior-chromium-"));
const browser = spawn("chromium", [
  "--headless=new",
  "--no-sandbox", // needed by root
  "--disable-gpu",
  "--disable-dev-shm-usage",
  `--user-data-dir=${profile}`,
  `--host-resolver-rules=MAP ${new URL(origin).hostname} 127.0.0.1:${port}`,
  "--enable-logging=stderr",
  origin,
]);
let log = "";
browser.stderr.on("data", (data) => (log += data));
const timeout = AbortSignal.timeout(120_000);
try {
  const [lines] = await Promise.race([
    once(pages, "told", { signal: timeout }),
    once(browser, "exit").then(() => { throw new Error("the browser ended") }),
  ]);
  console.log(lines);
  process.exitCode = String(lines).includes("failed: ") ? 1 : 0;
} catch (error) {
  console.error(`${error}\n${log}`);
  process.exitCode = 1;
} finally {
  browser.kill();
  if (browser.exitCode === null && browser.signalCode === null) await once(browser, "exit");
  await rm(profile, { recursive: true, force: true, maxRetries: 20 });
  pages.close();
  pages.closeAllConnections();
}
