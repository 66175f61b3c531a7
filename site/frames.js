"use strict";
// The first page's correction, a picture for each word: `site/animate.py` makes one of them.
//
//   CHROME=/usr/bin/google-chrome node site/frames.js runs/site FOLDER

const path = require("path");
const { pathToFileURL } = require("url");
const puppeteer = require("puppeteer-core");

const [site, out] = process.argv.slice(2);

async function main() {
  const args = ["--no-sandbox"];
  const browser = await puppeteer.launch({ executablePath: process.env.CHROME, args });
  const page = await browser.newPage();
  await page.setViewport({ width: 760, height: 1000 });
  // Each word waits for its frame: we hand them out one by one.
  await page.evaluateOnNewDocument(() => {
    window.waiting = [];
    window.requestAnimationFrame = (call) => window.waiting.push(call);
  });
  await page.goto(pathToFileURL(path.join(site, "index.html")).href);
  await page.waitForFunction(() => waiting.length > 0);
  await page.evaluate(() => document.querySelectorAll("header").forEach((node) => node.remove()));
  let done = false;
  for (let n = 0; !done; n++) {
    const file = path.join(out, `${String(n).padStart(2, "0")}.png`);
    done = Boolean(await page.$eval("#town-status", (node) => node.textContent));
    const clip = await page.evaluate(boxOf, ["town-question", "town-diff"], 34);
    await page.screenshot({ path: file, clip });
    await page.evaluate(async () => {
      waiting.splice(0).forEach((call) => call(0));
      await new Promise((resolve) => setTimeout(resolve, 60));
    });
  }
  const clip = await page.evaluate(boxOf, ["town-diff", "town-diff"], 8);
  await page.screenshot({ path: path.join(out, "aligner.png"), clip });
  await browser.close();
}

/** In the page: the rectangle from one element to another, with room around it. */
function boxOf([first, last], room) {
  const [a, b] = [first, last].map((id) => document.getElementById(id).getBoundingClientRect());
  const top = a.top + scrollY - room;
  return { x: a.x - 12, y: top, width: a.width + 24, height: b.bottom + scrollY + 8 - top };
}

main();
