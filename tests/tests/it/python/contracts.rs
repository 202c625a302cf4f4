//! Type hints as a contract: what callers see of them, and the objects that functions get.

use serde_json::json;

use super::*;

const MODULE: &str = r#"
import dataclasses
import enum
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Optional, TypedDict, Union


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class At(NamedTuple):
    x: float
    y: float = 0.0


class Extra(TypedDict):
    tag: str
    note: NotRequired[str]


class AtLeast:
    ge = 0


@dataclasses.dataclass
class Person:
    name: str
    age: Annotated[int, AtLeast()] = 0
    friends: list["Person"] = dataclasses.field(default_factory=list)
    colour: Colour | None = None

    def __post_init__(self):
        if self.name == "nobody":
            raise ValueError("nobody is no name")


def scalars(a: bool, b: int, c: float, d: str, e: bytes, f: datetime, g: None) -> None: ...
def unions(a: Optional[int], b: Union[str, bytes, None] = None, c: Literal["x", 1] = "x") -> int | str: ...
def lists(a: list, b: list[int], c: Sequence[str], d: tuple[int, str], e: tuple[int, ...]) -> list[bytes]: ...
def maps(a: dict, b: dict[str, int], c: Mapping[int, bool]) -> dict[str, Any]: ...
def classes(a: Person, b: Extra, c: At, d: Colour = Colour.RED) -> Person: ...
def unread(a: "Missing", b: Iterator[int], c: object) -> "Gone": ...
def partly(a, b: int): ...
def many(*a: int) -> Iterator[int]:
    yield from a
def nothing(): ...


def older(person: Person, by: int = 1) -> Person:
    assert type(person) is Person and all(type(friend) is Person for friend in person.friends)
    return dataclasses.replace(person, age=person.age + by)


async def names(people: dict[str, list[Person]]) -> list[str]:
    return [person.name for group in people.values() for person in group]


def kinds(colour: Colour, at: At, pair: tuple[Person, ...], who: Person | str | None) -> list[str]:
    return [type(value).__name__ for value in (colour, at, pair, who)]


def anything() -> Any:
    return [Colour.BLUE, At(1.0), Person("Ada"), {"deep": Colour.RED}]


def endless() -> Any:
    person = Person("Ada")
    person.friends.append(person)
    return person
"#;

async fn module() -> (Dispatcher, TempDir) {
    with("a.typed", &[("main.py", MODULE)]).await
}

#[tokio::test]
async fn hints_become_schemas() {
    let (host, _dir) = module().await;
    let methods = host.status("a.typed").unwrap().methods;
    let person = "{name: text, age?: int(0..), friends?: [Person], colour?: \"red\" | \"blue\" | nil}";
    let cases = [
        "scalars(a: bool, b: int, c: number, d: text, e: bytes, f: timestamp, g: nil) -> nil",
        "unions(a: int | nil, b?: text | bytes | nil, c?: \"x\" | 1) -> int | text",
        "lists(a: [any], b: [int], c: [text], d: [int, text], e: [int]) -> [bytes]",
        "maps(a: {[text]: any}, b: {[text]: int}, c: {[int]: bool}) -> {[text]: any}",
        "classes(a: Person, b: {tag: text, note?: text}, c: [number, number], d?: \"red\" | \"blue\") -> Person",
        "unread(a: Missing, b: collections.abc.Iterator[int], c: object) -> Gone",
        "partly(a, b: int)",
        "many(*a?: int) -> stream of int",
        "nothing()",
    ];
    for expected in cases {
        let name = expected.split('(').next().unwrap();
        let method = methods.iter().find(|method| method.name == name).unwrap();
        assert_eq!(method.signature(), expected, "{:?}", method.input);
    }
    let older = methods.iter().find(|method| method.name == "older").unwrap();
    let input = older.input.as_ref().unwrap();
    assert_eq!(
        input["$defs"]["Person"]["properties"]["age"],
        json!({ "type": "integer", "minimum": 0 }),
        "{person}"
    );
    assert_eq!(input["$defs"]["Person"]["required"], json!(["name"]));
    assert_eq!(older.output.as_ref().unwrap()["$defs"]["Person"]["additionalProperties"], false);
}

fn map(json: serde_json::Value) -> Value {
    json.into()
}

#[tokio::test]
async fn functions_get_and_give_objects() {
    let (host, _dir) = module().await;
    let ada = json!({ "name": "Ada", "friends": [{ "name": "Bob", "colour": "blue" }] });
    let older = call(&host, "a.typed", "older", vec![map(ada)]).await.unwrap();
    let bob = json!({ "name": "Bob", "age": 0, "friends": [], "colour": "blue" });
    let expected = json!({ "name": "Ada", "age": 1, "friends": [bob], "colour": null });
    assert_eq!(older.to_json(), expected);

    let people = json!({ "a": [{ "name": "Ada" }], "b": [{ "name": "Bob" }, { "name": "Cy" }] });
    let names = call(&host, "a.typed", "names", vec![map(people)]).await.unwrap();
    assert_eq!(names, list(&["Ada", "Bob", "Cy"]));

    let one = || map(json!({ "name": "Ada" }));
    let arguments = vec![text("red"), map(json!([1.5])), Value::List(vec![one()]), one()];
    let kinds = call(&host, "a.typed", "kinds", arguments).await.unwrap();
    assert_eq!(kinds, list(&["Colour", "At", "tuple", "Person"]));

    let given = call(&host, "a.typed", "anything", vec![]).await.unwrap();
    let ada = json!({ "name": "Ada", "age": 0, "friends": [], "colour": null });
    assert_eq!(given.to_json(), json!(["blue", [1.0, 0.0], ada, { "deep": "red" }]));
    let error = call(&host, "a.typed", "endless", vec![]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidValue, "{error}");
}

#[tokio::test]
async fn arguments_that_become_no_object_are_refused_with_their_path() {
    let (host, _dir) = module().await;
    let cases = [
        (vec![json!("Ada")], "older: person: expected a map, got text"),
        (vec![json!({})], "older: person: Person needs the field 'name'"),
        (vec![json!({ "name": "Ada", "size": 1 })], "older: person: Person has no field 'size'"),
        (vec![json!({ "name": "nobody" })], "older: person: nobody is no name"),
        (
            vec![json!({ "name": "Ada", "friends": [{ "name": "Bob", "colour": "pink" }] })],
            "older: person.friends[0].colour: 'pink' is none of 'red', 'blue'",
        ),
        (
            vec![],
            "older(person: Person, by: int = 1) -> Person: missing a required argument: 'person', 0 given",
        ),
    ];
    for (arguments, words) in cases {
        let arguments = arguments.into_iter().map(map).collect();
        let error = call(&host, "a.typed", "older", arguments).await.unwrap_err();
        assert_eq!(
            (error.code, error.message.replace("main.", "").as_str()),
            (ErrorCode::InvalidArguments, words)
        );
    }
}

/// A package that brings what looks like pydantic: the real one is compiled, and large.
#[tokio::test]
async fn models_validate_themselves() {
    let vendored = r#"
class ValidationError(ValueError):
    def errors(self):
        return [{"loc": ("tags", 1), "msg": "should be text"}]


class BaseModel:
    def __init__(self, **fields):
        self.__dict__.update(fields)

    @classmethod
    def model_json_schema(cls, mode, ref_template):
        when = {"type": "string", "format": "date-time"}
        return {"type": "object", "properties": {"when": when}, "title": mode}

    @classmethod
    def model_validate(cls, value):
        if value.get("tags") == ["a", 1]:
            raise ValidationError()
        return cls(**value)

    def model_dump(self):
        return dict(self.__dict__)
"#;
    let main = r#"
from pydantic import BaseModel


class Item(BaseModel):
    pass


def keep(item: Item) -> Item:
    assert type(item) is Item
    return item
"#;
    let files = [("main.py", main), ("vendor/pydantic/__init__.py", vendored)];
    let (host, _dir) = with("a.model", &files).await;
    let methods = host.status("a.model").unwrap().methods;
    assert_eq!(methods[0].signature(), "keep(item: {when?: timestamp}) -> {when?: timestamp}");
    assert_eq!(methods[0].output.as_ref().unwrap()["$defs"]["Item"]["title"], "serialization");
    let kept = call(&host, "a.model", "keep", vec![map(json!({ "tags": ["a"] }))]).await.unwrap();
    assert_eq!(kept.to_json(), json!({ "tags": ["a"] }));
    let error = call(&host, "a.model", "keep", vec![map(json!({ "tags": ["a", 1] }))]).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (ErrorCode::InvalidArguments, "keep: item.tags[1]: should be text")
    );
}
