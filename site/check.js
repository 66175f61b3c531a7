"use strict";
// Opens every page of a built site as a file, at the width of a phone and of a desktop, light and
// dark, and says what is wrong: errors in the console, what comes from elsewhere, what axe-core
// finds serious, text wider than the page. Then it tries what can be clicked, and says how fast the
// first page and its Aligner are.
//
//   npm install --no-save puppeteer-core@24.43.1 axe-core@4.14.1
//   CHROME=/usr/bin/google-chrome node site/check.js runs/site [folder for screenshots]

const fs = require("fs");
const os = require("os");
const path = require("path");
const { pathToFileURL } = require("url");
const puppeteer = require("puppeteer-core");

const [site, shots] = process.argv.slice(2);
const AXE = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const VIEWS = [390, 1280].flatMap((width) =>
  ["light", "dark"].map((scheme) => ({ width, scheme })),
);

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
  for (const attempt of [search, dial, definition, classInterval]) {
    const fault = await attempt(browser);
    if (!fault) continue;
    console.log(`${attempt.name}: ${fault}`);
    wrong += 1;
  }
  await speed(browser);
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
    found.push(
      `axe, ${impact}: ${id}, ${nodes.length} times, as in ${nodes[0].html.slice(0, 150)}`,
    );
  }
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 1) found.push(`${wide} pixels wider than the screen`);
  return found;
}

// ---- what can be clicked; each says what is wrong

async function open(browser, name) {
  const page = await browser.newPage();
  page.setDefaultTimeout(10000);
  await page.goto(pathToFileURL(path.join(site, name)).href);
  return page;
}

async function search(browser) {
  const page = await browser.newPage();
  await page.goto(`${pathToFileURL(path.join(site, "search.html")).href}?q=virtual+tokens`);
  await page.waitForFunction(() => document.querySelector("ul.search li a"));
  const found = await page.$$eval("ul.search li a", (links) => links.map((a) => a.textContent));
  return found.some((title) => title.startsWith("05")) ? "" : `it finds ${found}`;
}

/** With the keyboard alone: open MEET, and turn its dial from friendly to plain. */
async function dial(browser) {
  const page = await open(browser, "index.html");
  const answered = async () => {
    await page.waitForFunction(() => document.getElementById("town-reply").ariaBusy === "false");
    return page.$eval("#town-reply", (node) => node.textContent);
  };
  await page.focus("#town-tone summary");
  await page.keyboard.press("Enter");
  const friendly = await answered();
  await page.focus("#town-dial");
  await page.keyboard.press("Enter"); // which must not send a form
  await page.keyboard.press("Home");
  await page.waitForFunction(
    (old) => document.getElementById("town-reply").textContent !== old,
    {},
    friendly,
  );
  const plain = await answered();
  return friendly.endsWith(plain) || plain.length >= friendly.length
    ? `${friendly} / ${plain}`
    : "";
}

async function definition(browser) {
  const page = await open(browser, "notebooks/05_meet.html");
  await page.focus("[data-definition]");
  const shown = await page.$eval("#definition", (box) => !box.hidden && box.textContent);
  await page.keyboard.press("Escape");
  const gone = await page.$eval("#definition", (box) => box.hidden);
  return shown && gone ? "" : "it is not shown, or Escape does not put it away";
}

/** Two students' files. */
async function classInterval(browser) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "class-"));
  const files = [0.6, 0.7].map((value, seed) => {
    const metrics = { kept: { value, low: value - 0.1, high: value + 0.1, n: 99, unit: "rate" } };
    metrics.kept.source = "live";
    const file = path.join(folder, `${seed}.json`);
    fs.writeFileSync(file, JSON.stringify({ lesson: "02", seed, metrics }));
    return file;
  });
  const page = await open(browser, "class.html");
  await (await page.$("#class-files")).uploadFile(...files);
  await page.waitForSelector("#class-figure svg");
  const said = await page.$eval("#class-said", (node) => node.textContent);
  if (shots) await page.screenshot({ path: path.join(shots, "class_of_two.png") });
  return said.startsWith("Lesson 02, 2 seeds: 65.0 % [1.5, 100.0]") ? "" : said;
}

async function speed(browser) {
  const page = await browser.newPage();
  const started = Date.now();
  await page.goto(pathToFileURL(path.join(site, "index.html")).href);
  await page.waitForFunction(() => document.getElementById("town-status").textContent);
  const corrected = Date.now() - started;
  const paints = await page.evaluate(() =>
    performance.getEntriesByType("paint").map(({ name, startTime }) => [name, startTime]),
  );
  const paint = Object.fromEntries(paints)["first-contentful-paint"];
  console.log(`first paint after ${Math.round(paint)} ms, first correction after ${corrected} ms`);
  await page.close();
}

main();
