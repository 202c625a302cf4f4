import { host, QuadrigaError } from "quadriga";

/** Has a program run, and says how it ended. */
export async function run(
  program: string,
  args: string[],
  stdin?: string,
  env?: Record<string, string>,
  timeout?: number,
  folder?: string,
) {
  const ended = await host.process.run(program, args, { stdin, env, timeout, folder });
  return [ended.status, ended.signal, ended.stdout, ended.stderr];
}

/** What code that catches sees of a program that it may not have run. */
export async function caught(program: string) {
  try {
    await host.process.run(program);
  } catch (error) {
    if (error instanceof QuadrigaError) return [error.code, error.message];
  }
  return [];
}

/** Has a program run again and again until that is denied, in one call. */
export async function persist(program: string) {
  for (let i = 0; i < 100_000; i++) {
    try {
      await host.process.run(program);
    } catch (error) {
      return (error as QuadrigaError).code;
    }
  }
  return "never";
}
