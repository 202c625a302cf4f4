import { host } from "quadriga";

export function greet(name: string): string {
  host.log.info(`greeting ${name}`);
  return `Hello, ${name}!`;
}
