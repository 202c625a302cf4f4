use std::fs;

use quadriga_abi::{Method, Parameter};
use serde_json::json;

use super::describe;

/// The methods `names` of a package of these files, whose first is the entry.
fn methods(files: &[(&str, &str)], names: &[&str]) -> Vec<Method> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let file = dir.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let root = dir.path().canonicalize().unwrap();
    let mut methods: Vec<Method> = names.iter().map(|name| Method::named(*name)).collect();
    describe(&root, files[0].0, methods.iter_mut());
    methods
}

/// How `f` of a source is called, and what it returns.
fn check(file: &str, source: &str, expected: &str) {
    let mut method = methods(&[(file, source)], &["f"]).remove(0);
    let items = method.input.as_ref().and_then(|input| input["prefixItems"].as_array()).cloned();
    let least = method.input.as_ref().and_then(|input| input["minItems"].as_u64()).unwrap_or(0);
    let items = items.unwrap_or_default().into_iter().enumerate();
    method.parameters = items
        .map(|(index, item)| Parameter {
            name: item["title"].as_str().unwrap().to_owned(),
            ty: None,
            optional: index as u64 >= least,
        })
        .collect();
    assert_eq!(method.signature(), expected, "{source}: {:?} {:?}", method.input, method.output);
}

#[test]
fn types_become_schemas() {
    let cases = [
        ("a: number, b: string, c: boolean", "void", "f(a: number, b: text, c: bool) -> nil"),
        ("a: bigint, b: Uint8Array, c: Date", "Promise<null>", "f(a: int, b: bytes, c: timestamp) -> nil"),
        (
            "a: string | null, b: undefined | number",
            "string | 1",
            "f(a: text | nil, b: nil | number) -> 1 | text",
        ),
        ("a?: number, b = 2, ...c: string[]", "any", "f(a?: number, b?)"),
        ("a: any, b: unknown, c: number", "unknown", "f(a, b, c: number)"),
        (
            "a: string[], b: Array<number>, c: readonly (string | null)[]",
            "[]",
            "f(a: [text], b: [number], c: [text | nil]) -> []",
        ),
        (
            "a: [string, number?], b: [x: string, ...rest: number[]]",
            "void",
            "f(a: [text, number], b: [text, ...number]) -> nil",
        ),
        (
            "a: Record<string, number>, b: Map<string, Date>, c: Map<bigint, boolean>",
            "{}",
            "f(a: {[text]: number}, b: {[text]: timestamp}, c: {[int]: bool}) -> {[text]: any}",
        ),
        ("a: 'x' | 'y' | 3, b: true, c: `t${string}`", "never", "f(a: \"x\" | \"y\" | 3, b: true, c: text)"),
        (
            "a: { b: string, c?: number, [k: string]: unknown }",
            "{ d?: string }",
            "f(a: {b: text, c?: number}) -> {d?: text | nil}",
        ),
        (
            "{ a, b }: { a: string, b: number }, c: () => void",
            "symbol",
            "f(argument0: {a: text, b: number}, c)",
        ),
        (
            "a: Readonly<{ b: string }>, c: Partial<{ d: string }>",
            "Partial<{ e: string }>",
            "f(a: {b: text}, c: {d?: text}) -> {e?: text | nil}",
        ),
        ("a: Record<'x' | 'y', number>, b: { m(): void }", "Missing", "f(a: {x: number, y: number}, b)"),
        (
            "a: { b: string } & { c: number }, d: keyof typeof x, e: X['y']",
            "void",
            "f(a: {b: text} & {c: number}, d, e) -> nil",
        ),
        ("", "AsyncGenerator<string>", "f()"),
    ];
    for (parameters, returns, expected) in cases {
        let function = format!("export function f({parameters}): {returns} {{ return null as any }}\n");
        check("main.ts", &function, expected);
        let arrow = format!("export const f = async ({parameters}): {returns} => null as any;\n");
        check("main.ts", &arrow, expected);
    }
}

#[test]
fn declarations_are_followed() {
    let person = "{name: text, age?: number}";
    let cases = [
        ("interface P { name: string; age?: number }\nexport function f(p: P) {}", format!("f(p: {person})")),
        (
            "export type P = { name: string; age?: number };\nexport const f = (p: P[]) => 1;",
            format!("f(p: [{person}])"),
        ),
        (
            "interface A { a: string }\ninterface P extends A { b: number }\nexport function f(p: P) {}",
            "f(p: {a: text} & {b: number})".to_owned(),
        ),
        (
            "type Tree = { left: Tree | null };\nexport function f(t: Tree): Tree { return t }",
            "f(t: Tree) -> Tree".to_owned(),
        ),
        ("type P = string;\nexport function f<P>(p: P, q: number) {}", "f(p, q: number)".to_owned()),
        (
            "type Box<T> = { value: T };\nexport function f(b: Box<string>, q: number) {}",
            "f(b, q: number)".to_owned(),
        ),
        ("class C {}\nexport function f(c: C, q: number) {}", "f(c, q: number)".to_owned()),
        (
            "interface P { a: string }\ninterface P { b: string }\nexport function f(c: P, q: number) {}",
            "f(c, q: number)".to_owned(),
        ),
        ("type Date = string;\nexport function f(d: Date) {}", "f(d: text)".to_owned()),
        ("function g(a: number) {}\nexport { g as f };", "f(a: number)".to_owned()),
        ("export const f: (a: number) => void = (a) => {};", "f()".to_owned()),
    ];
    for (source, expected) in cases {
        check("main.ts", source, &expected);
    }
}

#[test]
fn generators_tell_their_items() {
    for (source, expected) in [
        ("export async function* f(n: number): AsyncGenerator<string> {}", "f(n: number) -> text"),
        ("export function* f(): Generator<number, void> {}", "f() -> number"),
        ("export function* f(): Mine<number> {}", "f()"),
    ] {
        check("main.ts", source, expected);
    }
}

#[test]
fn types_come_from_other_files() {
    let files = [
        (
            "src/main.ts",
            "import type { P as Person } from '../lib/people.ts';\nimport { Gone } from 'elsewhere';\n\
             export { g } from '../lib/people.ts';\nexport * from './more.ts';\n\
             export function f(p: Person, gone: Gone, t: import('../lib/people.ts').P) {}",
        ),
        (
            "lib/people.ts",
            "export { P } from './deep.ts';\nimport { P } from './deep.ts';\nexport function g(p: P) {}",
        ),
        ("lib/deep.ts", "export interface P { name: string }"),
        ("src/more.ts", "export const h = (p: Q) => 1;\ntype Q = [number];"),
    ];
    let methods = methods(&files, &["f", "g", "h"]);
    let defs = |place: usize| methods[place].input.as_ref().unwrap()["$defs"].clone();
    let person =
        json!({ "type": "object", "properties": { "name": { "type": "string" } }, "required": ["name"] });
    assert_eq!(defs(0), json!({ "P": person }));
    assert_eq!(defs(1), json!({ "P": person }));
    assert_eq!(defs(2)["Q"]["prefixItems"], json!([{ "type": "number" }]));
    let items = methods[0].input.as_ref().unwrap()["prefixItems"].clone();
    let reference = |title| json!({ "$ref": "#/$defs/P", "title": title });
    assert_eq!(items, json!([reference("p"), { "title": "gone" }, reference("t")]));
}

#[test]
fn comments_are_read_in_scripts() {
    let cases = [
        (
            "/** @param {number} a\n * @param {?string} [b]\n * @returns {Promise<string[]>} */\nexport async function f(a, b) {}",
            "f(a: number, b?: text | nil) -> [text]",
        ),
        (
            "/** @typedef {Object} P\n * @property {string} name */\n\n/** @param {P} p */\nexport const f = (p) => p;",
            "f(p: {name: text})",
        ),
        (
            "/** @param {string[]} all\n * @param {...number} more */\nexport function f(all, ...more) {}",
            "f(all: [text])",
        ),
        ("/** @param {{ a: number }} x */\nexport function f({ a }) {}", "f(argument0: {a: number})"),
        ("/** Does it. */\nexport function f(a) {}", "f()"),
        ("/* @param {number} a */\nexport function f(a) {}", "f()"),
    ];
    for (source, expected) in cases {
        check("main.js", source, expected);
    }
    let method = methods(
        &[("main.ts", "/**\n * Does it.\n *\n * Twice.\n * @internal\n */\nexport function f() {}")],
        &["f"],
    )
    .remove(0);
    assert_eq!(method.doc, "Does it.\n\nTwice.");
    let files = [
        ("main.js", "/** @param {import('./types.js').P} p */\nexport function f(p) {}"),
        ("types.js", "/** @typedef {{ name: string }} P */\nexport {};"),
    ];
    let method = methods(&files, &["f"]).remove(0);
    assert_eq!(method.input.unwrap()["$defs"]["P"]["required"], json!(["name"]));
}

#[test]
fn what_is_not_there_or_unreadable_has_no_schema() {
    for files in [
        &[("main.ts", "export function f(a: number {")][..],
        &[("main.ts", "export * from './main.ts';")],
        &[("main.ts", "export * from '../outside.ts';\nexport { f } from './gone.ts';")],
        &[("main.js", "export function f(a, b) {}")],
        &[("main.js", "export function f() {}")],
        &[("main.ts", "import { T } from './main.ts';\nexport function f(): T {}\nexport const f = 1;")],
    ] {
        let method = methods(files, &["f"]).remove(0);
        assert_eq!(method.output, None, "{files:?}");
        assert!(
            method.input.is_none_or(|input| input == json!({ "type": "array", "maxItems": 0 })),
            "{files:?}"
        );
    }
    let deep = format!("export function f(a: {}string{}) {{}}", "(".repeat(90), ")".repeat(90));
    assert_eq!(
        methods(&[("main.ts", &deep)], &["f"])[0].input.as_ref().unwrap()["prefixItems"],
        json!([{ "title": "a" }])
    );
}
