// Chromium, driven by a test: one JSON command per line on stdin, one JSON answer per line on stdout.
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});
const PATIENCE = { timeout: 60_000 };
let page;
const problems = [];

/** Probes, injected by the browser, since the page's own policy allows no eval. */
const probes = () => {
  window.rows = () =>
    [...document.querySelectorAll('.xterm-rows > div')].map((row) => row.textContent.trimEnd()).join('\n');
  window.picture = () => {
    const canvas = document.querySelector('canvas');
    if (!canvas?.width) return { colours: 0 };
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    const seen = new Set();
    for (let i = 0; i < data.length; i += 4) seen.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
    return { width: canvas.width, height: canvas.height, colours: seen.size };
  };
};

/** Waits until the terminal shows what a regular expression matches. */
const seen = (text, patience) =>
  page.waitForFunction((pattern) => new RegExp(pattern, 'm').test(window.rows()), text, patience);

const commands = {
  /** A new window, with its permissions and colour scheme. */
  async open({ url, width = 1100, height = 700, scheme = 'dark' }) {
    const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme });
    await context.grantPermissions(['clipboard-read', 'clipboard-write']);
    await context.addInitScript(probes);
    page = await context.newPage();
    page.on('console', (message) => {
      // Chromium logs every failed connection, which some tests are about.
      if (message.type() === 'error' && !message.text().includes('WebSocket')) problems.push(message.text());
    });
    page.on('pageerror', (error) => problems.push(String(error)));
    await page.goto(url);
    return page.url();
  },
  reload: async () => void (await page.reload()),
  /** Waits until the terminal shows a text, as a regular expression. */
  async see({ text }) {
    try {
      await seen(text, PATIENCE);
    } catch (error) {
      throw new Error(`${text} was not shown, but: ${await page.evaluate(() => window.rows())} (${error.message})`);
    }
    return page.evaluate(() => window.rows());
  },
  /** Whether it shows that before long. */
  shows: ({ text }) => seen(text, { timeout: 2_000 }).then(() => true, () => false),
  /** Waits until the page has a text. */
  find: async ({ text }) => void (await page.getByText(text).first().waitFor(PATIENCE)),
  screen: () => page.evaluate(() => window.rows()),
  type: async ({ text }) => void (await page.keyboard.type(text)),
  press: async ({ key }) => void (await page.keyboard.press(key)),
  click: async ({ on }) => void (await page.click(on)),
  resize: async ({ width, height }) => void (await page.setViewportSize({ width, height })),
  /** Waits until the status line says a text. */
  async status({ text }) {
    await page.waitForFunction((t) => document.querySelector('#words').textContent.includes(t), text, PATIENCE);
    return page.textContent('#words');
  },
  /** Waits for the card over the page. */
  async notice() {
    await page.waitForSelector('#notice:not([hidden])', PATIENCE);
    const text = (id) => page.textContent(id);
    return { title: await text('#notice-title'), words: await text('#notice-words'), again: await page.isVisible('#again') };
  },
  async paste({ text }) {
    await page.evaluate((t) => navigator.clipboard.writeText(t), text);
    await page.click('#paste');
    // The text has been pasted once the button gives up the focus.
    await page.waitForFunction(() => document.activeElement?.id !== 'paste', null, PATIENCE);
  },
  /** Selects the first line that contains a text, copies it with the keyboard, and returns the clipboard. */
  async copy({ text }) {
    await page.locator('.xterm-rows > div', { hasText: text }).first().click({ clickCount: 3, force: true });
    await page.keyboard.press('Control+Shift+C');
    return page.evaluate(() => navigator.clipboard.readText());
  },
  /** How many colours the screen's picture has, once it has more than one. */
  async picture() {
    await page.waitForFunction(() => window.picture().colours > 1, null, PATIENCE);
    return page.evaluate(() => window.picture());
  },
  shot: async ({ path }) => void (await page.screenshot({ path })),
  problems: () => problems,
  close: async () => void (await page.context().close()),
};

const lines = createInterface({ input: process.stdin });
for await (const line of lines) {
  const command = JSON.parse(line);
  try {
    say({ event: 'done', args: [(await commands[command.do](command)) ?? null] });
  } catch (error) {
    say({ event: 'failed', args: [String(error.message)] });
  }
}
await browser.close();
