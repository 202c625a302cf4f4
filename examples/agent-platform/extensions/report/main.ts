// Adds an analysis and a report to the API for plans.

import { host } from "quadriga";
import { marked } from "./vendor/marked.js";

interface Plan {
  state: string;
  steps: Record<string, { after: string[] }>;
}

interface Metrics {
  step: string;
  agent: string;
  began: number;
  ended: number;
  cost: number;
}

/** Which steps decide how long a plan takes: `kind` is "critical-path". */
export async function analyze(plan: string, kind: string) {
  if (kind !== "critical-path") throw new Error(`there is no analysis "${kind}", only "critical-path"`);
  const [{ steps }, done] = await known(plan);
  const took = new Map(done.map(({ step, began, ended }) => [step, ended - began]));
  // The trace has each step after those that it builds on.
  const ways = new Map<string, { path: string[]; minutes: number }>();
  const longest = (names: Iterable<string>) =>
    [...names].map((name) => ways.get(name)!).reduce((a, b) => (b.minutes > a.minutes ? b : a), {
      path: [],
      minutes: 0,
    });
  for (const [step, minutes] of took) {
    const before = longest(steps[step].after);
    ways.set(step, { path: [...before.path, step], minutes: before.minutes + minutes });
  }
  return longest(took.keys());
}

/** A report on a plan. */
export async function report(plan: string, { format = "markdown" }: { format?: string } = {}) {
  const [[{ state }, done], took] = await Promise.all([
    known(plan),
    host.call("app.trace", "summary", plan),
  ]);
  const rows = done.map(({ step, agent, began, ended, cost }) => [step, agent, began, ended, cost]);
  const cost = done.reduce((sum, step) => sum + step.cost, 0);
  const text = [
    `# ${plain(plan)}`,
    "",
    `The plan is ${state}. It cost ${cost}; a step took ${took.mean} minutes on average, and ` +
      `${plain(took.longest)} the longest.`,
    "",
    "| step | agent | from | to | cost |",
    "| --- | --- | --: | --: | --: |",
    ...rows.map((row) => `| ${row.map((cell) => plain(String(cell))).join(" | ")} |`),
  ].join("\n");
  return format === "html" ? marked.parse(text) : text;
}

function known(plan: string): Promise<[Plan, Metrics[]]> {
  return Promise.all([host.call<Plan>("app.plan", "get", plan), host.call<Metrics[]>("app.trace", "of", plan)]);
}

/** Text that is neither Markdown nor HTML. */
function plain(text: string) {
  return text.replace(/[&<>|*_`[\]\\#]/g, (char) => `&#${char.charCodeAt(0)};`);
}
