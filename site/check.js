"use strict";
// Opens every page of a built site as a file, at the width of a phone and of a desktop, light and
// dark, and says what is wrong: errors in the console, what comes from elsewhere, what axe-core
// finds serious, text wider than the page. Then how fast the first page and its Aligner are.
//
//   npm install --no-save puppeteer-core axe-core
//   CHROME=/usr/bin/google-chrome node site/check.js runs/site [folder for screenshots]

const fs = require("fs");
const path = require("path");
const { pathToFileURL } = require("url");
const puppeteer = require("puppeteer-core");

const [site, shots] = process.argv.slice(2);
const AXE = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const VIEWS = [390, 1280].flatMap((width) => ["light", "dark"].map((scheme) => ({ width, scheme })));

async function main() {
  const files = fs.readdirSync(site, { recursive: true });
  const pages = files.filter((name) => name.endsWith(".html") && !name.startsWith("_")).sort();
  const args = ["--no-sandbox"];
  const browser = await puppeteer.launch({ executablePath: process.env.CHROME, args });
  let wrong = 0;
  for (const name of pages) {
    for (const view of VIEWS) {
      for (const fault of await faults(browser, name, view)) {
        console.log(`${name} ${view.width} ${view.scheme}: ${fault}`);
        wrong += 1;
      }
    }
  }
  await speed(browser);
  wrong += await search(browser);
  await browser.close();
  console.log(`${pages.length} pages in ${VIEWS.length} views, ${wrong} faults`);
  process.exitCode = wrong ? 1 : 0;
}

async function faults(browser, name, { width, scheme }) {
  const page = await browser.newPage();
  const found = [];
  page.on("console", (message) => message.type() === "error" && found.push(message.text()));
  page.on("pageerror", (error) => found.push(String(error)));
  page.on("request", (request) => {
    if (!/^(file|data|blob):/.test(request.url())) found.push(`asks for ${request.url()}`);
  });
  await page.setViewport({ width, height: 900 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(pathToFileURL(path.join(site, name)).href);
  await page.evaluate(AXE);
  found.push(...(await page.evaluate(look)));
  if (shots) {
    const file = `${name.replace(/[/.]/g, "_")}_${width}_${scheme}.png`;
    await page.screenshot({ path: path.join(shots, file), fullPage: true });
  }
  await page.close();
  return found;
}

/** In the page: what axe finds serious, and whether the page must be moved sideways. */
async function look() {
  const found = [];
  for (const { id, impact, nodes } of (await axe.run({ preload: false })).violations) {
    if (impact !== "serious" && impact !== "critical") continue;
    found.push(`axe, ${impact}: ${id}, ${nodes.length} times, as in ${nodes[0].html.slice(0, 150)}`);
  }
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 1) found.push(`${wide} pixels wider than the screen`);
  return found;
}

async function search(browser) {
  const page = await browser.newPage();
  await page.goto(`${pathToFileURL(path.join(site, "search.html")).href}?q=virtual+tokens`);
  await page.waitForFunction(() => document.querySelector("ul.search li a"), { timeout: 5000 });
  const found = await page.$$eval("ul.search li a", (links) => links.map((link) => link.textContent));
  await page.close();
  if (found.some((title) => title.startsWith("05"))) return 0;
  console.log(`search for "virtual tokens" finds ${found}`);
  return 1;
}

async function speed(browser) {
  const page = await browser.newPage();
  const started = Date.now();
  await page.goto(pathToFileURL(path.join(site, "index.html")).href);
  await page.waitForFunction(() => document.getElementById("town-status").textContent);
  const corrected = Date.now() - started;
  const paints = await page.evaluate(() =>
    performance.getEntriesByType("paint").map(({ name, startTime }) => [name, startTime])
  );
  const paint = Object.fromEntries(paints)["first-contentful-paint"];
  console.log(`first paint after ${Math.round(paint)} ms, first correction after ${corrected} ms`);
  await page.close();
}

main();
