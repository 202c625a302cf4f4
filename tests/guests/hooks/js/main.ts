import { host } from "quadriga";

interface Plan {
  title: string;
  steps: Record<string, number>;
}

export function mark(plan: Plan) {
  return { steps: { js: Object.keys(plan.steps).length } };
}

export function object(plan: Plan) {
  return plan.title === "bad" ? "js objects" : null;
}

export function fail(_plan: Plan) {
  throw new Error("js fails");
}

export function late(_plan: Plan) {
  for (;;);
}

export async function around(plan: Plan) {
  if (plan.title === "cached") return "from js";
  const made = await host.proceed<string>({ steps: { js: Object.keys(plan.steps).length } });
  if (plan.title === "look") return null;
  return `${made}, js`;
}

export async function again(_plan: Plan) {
  await host.call("app.host", "plan");
}
