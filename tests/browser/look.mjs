// Looks at a page as people do: on wide and narrow screens, light and dark, on paper, by keyboard and by mouse.
//
//   node look.mjs MODULES CHROMIUM PAGE FOLDER     what was seen as JSON on stdout; pictures and a PDF in FOLDER
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import path from "node:path";

const [modules, chromium, file, folder] = process.argv.slice(2);
const require = createRequire(path.join(modules, "look.cjs"));
const puppeteer = require("puppeteer-core");
const axe = require("axe-core").source;

const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox"], protocolTimeout: 600_000 });
const seen = { console: [], requests: [], views: {}, keyboard: {}, mouse: {} };

const opened = async (width, height, scheme) => {
  const page = await browser.newPage();
  page.setDefaultTimeout(120_000);
  page.on("console", (message) => seen.console.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => seen.console.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => { seen.console.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => {
    if (!request.url().startsWith("data:")) seen.requests.push(request.url());
  });
  await page.setViewport({ width, height, isMobile: width < 500, hasTouch: width < 500 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(pathToFileURL(file).href, { waitUntil: "load" });
  return page;
};

const violations = async (page) => {
  await page.evaluate(axe);  // by the debugger: the page's own policy lets no other script in
  const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  return found.violations.map((one) => ({ rule: one.id, help: one.help, nodes: one.nodes.slice(0, 5).map((node) => node.html.slice(0, 200)) }));
};

const shown = (page) => page.evaluate(() => ({
  told: document.getElementById("shown").textContent,
  count: new Set([...document.querySelectorAll("[data-sample]")].filter((node) => node.checkVisibility())
    .map((node) => `${node.dataset.shard} ${node.dataset.index}`)).size,
}));

for (const [name, width, height, scheme] of [
  ["desktop", 1280, 900, "light"], ["dark", 1280, 900, "dark"], ["phone", 400, 850, "light"], ["phone-dark", 400, 850, "dark"],
]) {
  const page = await opened(width, height, scheme);
  await page.evaluate(() => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
  const width_found = await page.evaluate(() => document.documentElement.scrollWidth);
  seen.views[name] = { width, scroll_width: width_found, violations: await violations(page), paper: await page.evaluate(() => getComputedStyle(document.body).backgroundColor) };
  const tall = await page.evaluate(() => document.documentElement.scrollHeight);
  await page.screenshot({ path: path.join(folder, `${name}.png`), clip: { x: 0, y: 0, width, height: Math.min(tall, 4000) } });
  await page.close();
}

{
  const page = await opened(1280, 900, "light");
  const focused = () => page.evaluate(() => document.activeElement?.name || document.activeElement?.type || "");
  const tab_to = async (name) => {
    for (let tabs = 1; tabs < 60; tabs++) {
      await page.keyboard.press("Tab");
      if (await focused() === name) return tabs;
    }
    throw new Error(`no Tab leads to ${name}`);
  };
  const report = seen.keyboard;
  report.all = await shown(page);
  await tab_to("key");
  report.outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  await page.keyboard.type("00001");
  report.key = await shown(page);
  await tab_to("flip");
  await page.keyboard.press("ArrowDown");  // flipped
  report.key_and_flip = await shown(page);
  await tab_to("order");
  await page.keyboard.type("k");  // key
  report.first_keys = await page.evaluate(() => [...document.querySelectorAll(".cards [data-sample]")].filter((n) => n.checkVisibility()).map((n) => n.dataset.key));
  await tab_to("reset");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.getElementById("shown").textContent.startsWith("all"));
  report.after_reset = await shown(page);
  report.cards_in_order = await page.evaluate(() => [...document.querySelectorAll(".group")].every((group) => {
    const places = [...group.querySelectorAll("[data-sample]")].map((node) => Number(node.dataset.place));
    return places.every((place, at) => at === 0 || places[at - 1] < place);
  }));
  await page.close();
}

{
  const page = await opened(1280, 900, "light");
  const report = seen.mouse;
  await page.select('select[name="status"]', "undecodable");
  report.status = await shown(page);
  await page.click('button[type="reset"]');
  await page.waitForFunction(() => document.getElementById("shown").textContent.startsWith("all"));
  const [, shard] = await page.$$eval('select[name="shard"] option', (options) => options.map((option) => option.value));
  await page.select('select[name="shard"]', shard);
  report.shard = { name: shard, ...(await shown(page)) };
  await page.click('button[type="reset"]');
  await page.waitForFunction(() => document.getElementById("shown").textContent.startsWith("all"));
  await page.click('input[name="key"]');
  await page.keyboard.type("no such key");
  report.nothing = await shown(page);
  await page.click('button[type="reset"]');
  await page.waitForFunction(() => document.getElementById("shown").textContent.startsWith("all"));
  await page.select('select[name="order"]', "suspicion");
  report.suspicions = await page.$$eval(".cards", (lists) => lists.map((list) => [...list.children].map((node) => Number(node.dataset.suspicion))));
  report.filter_ms = await page.evaluate(() => {
    const input = document.querySelector('input[name="key"]');
    const began = performance.now();
    input.value = "1";
    input.dispatchEvent(new Event("input", { bubbles: true }));
    document.body.getBoundingClientRect();
    return performance.now() - began;
  });
  await page.close();
}

{
  const page = await opened(1280, 900, "dark");
  await page.pdf({ path: path.join(folder, "page.pdf"), format: "A4", margin: { top: "1cm", bottom: "1cm", left: "1cm", right: "1cm" }, printBackground: false });
  await page.emulateMediaType("print");
  seen.paper = await page.evaluate(() => ({
    filters: document.getElementById("filters").checkVisibility(),
    color: getComputedStyle(document.body).color,
  }));
  await page.close();
}

{
  const page = await browser.newPage();
  await page.setJavaScriptEnabled(false);
  await page.goto(pathToFileURL(file).href, { waitUntil: "load" });
  const tree = await page.accessibility.snapshot();
  const names = [];
  const walk = (node) => { names.push(`${node.role} ${node.name ?? ""}`); (node.children ?? []).forEach(walk); };
  walk(tree);
  seen.without_scripts = { headings: names.filter((name) => name.startsWith("heading")).length, forms: names.filter((name) => name.startsWith("combobox")).length };
  await page.close();
}

await browser.close();
console.log(JSON.stringify(seen));
