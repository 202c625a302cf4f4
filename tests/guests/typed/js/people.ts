/** Someone. */
export interface Person {
  name: string;
  age?: bigint | null;
  tags: string[];
  friends: Person[];
}
