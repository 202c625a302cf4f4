// Posts a notice of each plan that is done.

import { host } from "quadriga";

export async function completed({ plan, context, took, cost }) {
  await host.emit("notice.posted", { to: context, text: `${plan} is done: ${took} minutes, ${cost} spent` });
}
