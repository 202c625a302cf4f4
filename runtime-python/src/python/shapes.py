"""What type hints say of values, as JSON Schema in the conventions of docs/contracts.md. What
cannot be read is `True`, which takes anything.
"""

import collections.abc
import dataclasses
import datetime
import enum
import inspect
import json
import types
import typing

_SIMPLE = {
    type(None): {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bytes: {"type": "string", "format": "bytes"},
    bytearray: {"type": "string", "format": "bytes"},
    memoryview: {"type": "string", "format": "bytes"},
    datetime.datetime: {"type": "string", "format": "timestamp"},
}
LISTS = (list, collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Collection)
MAPS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_STREAMS = (
    collections.abc.Iterator,
    collections.abc.Iterable,
    collections.abc.Generator,
    collections.abc.AsyncIterator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncGenerator,
)
_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "min_length": "minLength",
    "max_length": "maxLength",
}


def hints(thing):
    """The annotations of a function or class, evaluated; none if they cannot be."""
    try:
        return typing.get_type_hints(thing, include_extras=True)
    except Exception:
        return {}


def of_function(signature, annotations):
    """The schemas of the arguments and of the result, as JSON, or None."""
    taken = _Shapes("validation")
    positional = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = [p for p in signature.parameters.values() if p.kind is p.VAR_POSITIONAL]
    shapes = [taken.of(annotations.get(p.name, typing.Any)) for p in positional]
    others = taken.of(annotations.get(rest[0].name, typing.Any)) if rest else False
    schema = {
        "type": "array",
        "prefixItems": [_titled(shape, p.name) for shape, p in zip(shapes, positional)],
        "minItems": sum(p.default is p.empty for p in positional),
        "items": others,
    }
    if not positional:
        schema = {"type": "array", "items": others} if rest else {"type": "array", "maxItems": 0}
    nothing = bool(positional or rest) and not any(annotations.get(p.name) for p in [*positional, *rest])
    given = _Shapes("serialization")
    result = given.of(_item(annotations["return"])) if "return" in annotations else True
    return None if nothing else taken.text(schema), None if result is True else given.text(result)


def _item(hint):
    """Of what a generator yields, one."""
    hint = unwrap(hint)
    return typing.get_args(hint)[0] if typing.get_origin(hint) in _STREAMS else hint


def _titled(shape, title):
    return {"title": title} if shape is True else {**shape, "title": title}


def unwrap(hint):
    """The type behind aliases, new types and what only annotates."""
    while True:
        if isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif hasattr(hint, "__value__") and type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        elif getattr(typing.get_origin(hint), "_name", None) in ("Required", "NotRequired", "ReadOnly", "Final"):
            hint = typing.get_args(hint)[0]
        else:
            return hint


def is_union(hint):
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def is_model(hint):
    """A pydantic model, whichever copy of pydantic the package brought."""
    return isinstance(hint, type) and hasattr(hint, "model_json_schema") and hasattr(hint, "model_validate")


def is_typed_dict(hint):
    """One of `typing`, or of a copy of `typing_extensions`."""
    return isinstance(hint, type) and issubclass(hint, dict) and hasattr(hint, "__required_keys__")


def is_named_tuple(hint):
    return isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields")


class _Shapes:
    """The schemas of one side, with the definitions that they refer to."""

    def __init__(self, mode):
        self.mode = mode
        self.names = {}
        self.definitions = {}

    def text(self, schema):
        if self.definitions:
            schema = {**schema, "$defs": self.definitions}
        try:
            return json.dumps(schema, allow_nan=False)
        except (TypeError, ValueError):
            return None

    def of(self, hint):
        hint = unwrap(hint)
        if hint is None:
            hint = type(None)
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if isinstance(hint, type) and hint in _SIMPLE:
            return dict(_SIMPLE[hint])
        if is_union(hint):
            return _any_of([self.of(arm) for arm in args])
        if origin is typing.Literal:
            return _enum(args)
        if origin is typing.Annotated:
            return self.annotated(args[0], args[1:])
        if (origin or hint) in LISTS:
            return {"type": "array", "items": self.of(args[0])} if args else {"type": "array"}
        if (origin or hint) in MAPS:
            return self.map(args)
        if origin is tuple or hint is tuple:
            return self.tuple(args)
        if isinstance(hint, type) and origin is None:
            return self.named(hint)
        return True

    def annotated(self, hint, notes):
        shape = self.of(hint)
        if shape is True:
            return True
        for note in notes:
            if isinstance(note, str):
                shape["description"] = note
            for single in (note, *getattr(note, "metadata", ())):
                for name, keyword in _BOUNDS.items():
                    bound = getattr(single, name, None)
                    if isinstance(bound, (int, float)) and not isinstance(bound, bool):
                        shape[_for_type(shape, keyword)] = bound
                pattern = getattr(single, "pattern", None)
                if isinstance(pattern, str):
                    shape["pattern"] = pattern
        return shape

    def map(self, args):
        if not args:
            return {"type": "object"}
        key, value = unwrap(args[0]), self.of(args[1])
        shape = {"type": "object", "additionalProperties": value}
        if key is int:
            shape["propertyNames"] = {"format": "int"}
        return shape

    def tuple(self, args):
        if not args:
            return {"type": "array"}
        if len(args) == 2 and args[1] is ...:
            return {"type": "array", "items": self.of(args[0])}
        items = [self.of(arg) for arg in args if arg != ()]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "items": False}

    def named(self, cls):
        """A class of the author's, as a definition that others refer to."""
        if cls in self.names:
            return {"$ref": f"#/$defs/{self.names[cls]}"}
        if is_model(cls):
            return self.model(cls)
        if issubclass(cls, enum.Enum):
            make = self.enumeration
        elif is_typed_dict(cls):
            make = self.typed_dict
        elif is_named_tuple(cls):
            make = self.named_tuple
        elif dataclasses.is_dataclass(cls):
            make = self.dataclass
        else:
            return True
        name = self.name(cls.__name__)
        self.names[cls] = name
        self.definitions[name] = True
        self.definitions[name] = make(cls)
        doc = cls.__dict__.get("__doc__")
        if doc and isinstance(self.definitions[name], dict) and not doc.startswith(f"{cls.__name__}("):
            self.definitions[name]["description"] = inspect.cleandoc(doc)
        return {"$ref": f"#/$defs/{name}"}

    def name(self, wanted):
        name, count = wanted, 1
        while name in self.definitions:
            count += 1
            name = f"{wanted}{count}"
        return name

    def enumeration(self, cls):
        return _enum([member.value for member in cls])

    def typed_dict(self, cls):
        annotations = hints(cls) or dict.fromkeys(cls.__annotations__, typing.Any)
        return {
            "type": "object",
            "properties": {name: self.of(hint) for name, hint in annotations.items()},
            "required": [name for name, hint in annotations.items() if _is_required(cls, name, hint)],
        }

    def named_tuple(self, cls):
        annotations = hints(cls)
        items = [_titled(self.of(annotations.get(name, typing.Any)), name) for name in cls._fields]
        least = len(items) - (len(cls._field_defaults) if self.mode == "validation" else 0)
        return {"type": "array", "prefixItems": items, "minItems": least, "items": False}

    def dataclass(self, cls):
        annotations = hints(cls)
        fields = [f for f in dataclasses.fields(cls) if f.init or self.mode == "serialization"]
        return {
            "type": "object",
            "properties": {f.name: self.of(annotations.get(f.name, typing.Any)) for f in fields},
            "required": [f.name for f in fields if self.mode == "serialization" or is_required(f)],
            "additionalProperties": False,
        }

    def model(self, cls):
        try:
            schema = _conventional(cls.model_json_schema(mode=self.mode, ref_template="#/$defs/{model}"))
        except Exception:
            return True
        definitions = schema.pop("$defs", {})
        name = cls.__name__
        if "$ref" not in schema:
            definitions[name] = schema
            schema = {"$ref": f"#/$defs/{name}"}
        for key, definition in definitions.items():
            if self.definitions.setdefault(key, definition) != definition:
                return True
        self.names[cls] = schema["$ref"].rpartition("/")[2]
        return schema


def is_required(field):
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _is_required(cls, name, hint):
    """A class cannot tell by itself when its annotations are texts."""
    marked = getattr(typing.get_origin(hint), "_name", None)
    return marked == "Required" or (marked != "NotRequired" and name in cls.__required_keys__)


def _enum(values):
    values = list(dict.fromkeys(values))
    values = [value.value if isinstance(value, enum.Enum) else value for value in values]
    if not all(value is None or isinstance(value, (str, int, bool)) for value in values):
        return True
    return {"enum": values}


def _any_of(shapes):
    if True in shapes:
        return True
    kinds = [shape["type"] for shape in shapes if list(shape) == ["type"]]
    return {"type": kinds} if len(kinds) == len(shapes) else {"anyOf": shapes}


def _for_type(shape, keyword):
    """Lengths are of texts, or of lists."""
    return keyword.replace("Length", "Items") if shape.get("type") == "array" else keyword


def _conventional(schema):
    """A schema of pydantic's with bytes and timestamps as they are on our wire."""
    if isinstance(schema, list):
        return [_conventional(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    formats = {"binary": "bytes", "date-time": "timestamp"}
    return {
        key: formats.get(value, value)
        if key == "format" and isinstance(value, str)
        else value
        if key in ("default", "const", "enum", "examples")
        else _conventional(value)
        for key, value in schema.items()
    }
