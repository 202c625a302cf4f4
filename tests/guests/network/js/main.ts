/** Gets something, and says its status and text. */
export async function get(url: string): Promise<string> {
  const response = await fetch(url);
  return `${response.status} ${await response.text()}`;
}

/** Posts something, and says what came back. */
export async function post(url: string, body: string): Promise<string> {
  const response = await fetch(url, { method: "POST", body });
  return `${response.status} ${await response.text()}`;
}

/** What an extension sees of a fetch that fails. */
export async function caught(url: string): Promise<string[]> {
  try {
    await fetch(url);
    return ["nothing"];
  } catch (error: any) {
    return [error.constructor.name, error.message, String(error.cause?.code), String(error.cause?.hint)];
  }
}

/** Gets something, and gives up after so many milliseconds. */
export async function impatient(url: string, milliseconds: number): Promise<string> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(milliseconds) });
    return await response.text();
  } catch (error: any) {
    return error.name;
  }
}

/** A tour through what authors of the web platform know. */
export async function tour(url: string): Promise<Record<string, unknown>> {
  const headers = new Headers([["X-One", "1"]]);
  headers.append("x-one", "2");
  const request = new Request(url, { method: "post", headers, body: new Uint8Array([123, 125]) });
  const response = await fetch(request);
  const twin = response.clone();
  const parsed = await response.json();
  const chunks: number[] = [];
  for await (const chunk of twin.body!) chunks.push(chunk.length);
  const made = Response.json({ a: 1 }, { status: 201 });
  return {
    parsed,
    ok: response.ok,
    status: response.status,
    statusText: response.statusText,
    type: response.headers.get("Content-Type"),
    none: response.headers.get("x-none"),
    used: [response.bodyUsed, twin.bodyUsed],
    twin: chunks.reduce((sum, length) => sum + length, 0) > 0,
    url: response.url === url,
    redirected: response.redirected,
    made: [made.status, made.headers.get("content-type"), (await made.json()).a],
    again: await response.text().then(
      () => "read twice",
      (error) => error.constructor.name,
    ),
    names: [...headers.keys()],
    buffer: (await new Response("abc").arrayBuffer()).byteLength,
    bytes: [...(await new Response(new Uint8Array([1, 2])).bytes())],
    head: await (await fetch(url, { method: "HEAD" })).text(),
  };
}
