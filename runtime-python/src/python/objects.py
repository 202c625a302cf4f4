"""Between values and the objects that authors write: dataclasses, pydantic models, enums, named
tuples.
"""

import collections.abc
import dataclasses
import enum
import functools
import typing

from _quadriga_shapes import LISTS, MAPS, hints, is_model, is_named_tuple, is_required, is_typed_dict, is_union, unwrap

_SETS = (set, frozenset, collections.abc.Set, collections.abc.MutableSet)


class Unfit(Exception):
    """An argument that cannot become what the function is annotated with."""

    def __init__(self, path, what):
        super().__init__(f"{path}: {what}" if path else what)


def reading(name, function, signature, annotations, misfit):
    """The function, given objects where its annotations ask for them; itself if none does.

    `misfit` says why arguments cannot be passed to a function.
    """
    made = {}
    readers, rest = [], None
    for parameter in signature.parameters.values():
        reader = _reader(annotations.get(parameter.name, typing.Any), made)
        if parameter.kind is parameter.VAR_POSITIONAL:
            rest = reader
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            readers.append((parameter.name, reader))
    if rest is None and not any(reader for _, reader in readers):
        return function

    @functools.wraps(function)
    def call(*arguments):
        why = misfit(name, function, arguments)
        if why:
            raise Unfit(None, why)
        read = []
        for index, value in enumerate(arguments):
            parameter, reader = readers[index] if index < len(readers) else (f"argument {index + 1}", rest)
            read.append(reader(value, f"{name}: {parameter}") if reader else value)
        return function(*read)

    return call


def plain(value):
    """An object as the value that stands for it, in a tuple; None if there is none."""
    if isinstance(value, enum.Enum):
        return (value.value,)
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return ({field.name: getattr(value, field.name) for field in dataclasses.fields(value)},)
    if is_model(type(value)):
        return (value.model_dump(),)
    return None


def _reader(hint, made):
    """What makes an argument of a value: a function of the value and its path, or None for a value
    that is passed as it is.
    """
    hint = unwrap(hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _reader(args[0], made)
    if is_union(hint):
        return _union(args, made)
    if (origin or hint) in LISTS:
        return _items(list, args[0], made) if args else None
    if (origin or hint) in _SETS:
        return _items(frozenset if (origin or hint) is frozenset else set, args[0] if args else typing.Any, made, True)
    if (origin or hint) in MAPS:
        return _mapping(args, made) if args else None
    if origin is tuple or hint is tuple:
        return _tuple(args, made)
    if not isinstance(hint, type) or origin is not None:
        return None
    if hint not in made:
        made[hint] = None
        make = _maker(hint)
        if make:
            # Known before it is made: a class may hold itself.
            made[hint] = lambda value, path: made[hint, "read"](value, path)
            made[hint, "read"] = make(hint, made)
    return made[hint]


def _maker(cls):
    if is_model(cls):
        return _model
    if issubclass(cls, enum.Enum):
        return _enum
    if is_typed_dict(cls):
        return _typed_dict
    if is_named_tuple(cls):
        return _named_tuple
    if dataclasses.is_dataclass(cls):
        return _dataclass
    return None


def _union(arms, made):
    readers = [(unwrap(arm), _reader(arm, made)) for arm in arms]
    if not any(reader for _, reader in readers):
        return None

    def read(value, path):
        first = None
        for arm, reader in readers:
            if reader is None:
                if _is_plain(arm, value):
                    return value
                continue
            try:
                return reader(value, path)
            except Unfit as unfit:
                # The deepest is of the arm that was meant.
                if first is None or len(str(unfit)) > len(str(first)):
                    first = unfit
        raise first

    return read


def _is_plain(arm, value):
    arm = type(None) if arm is None else typing.get_origin(arm) or arm
    if arm is typing.Literal or not isinstance(arm, type):
        return not isinstance(value, (dict, list))
    if isinstance(value, bool):
        return arm is bool
    return isinstance(value, (int, float) if arm is float else arm)


def _items(kind, hint, made, always=False):
    item = _reader(hint, made)
    if item is None and not always:
        return None

    def read(value, path):
        if not isinstance(value, list):
            raise Unfit(path, f"expected a list, got {_sort(value)}")
        return kind(item(one, f"{path}[{n}]") if item else one for n, one in enumerate(value))

    return read


def _mapping(args, made):
    reader = _reader(args[1], made)
    if reader is None:
        return None

    def read(value, path):
        return {key: reader(one, f"{path}[{key!r}]") for key, one in _map(value, path).items()}

    return read


def _tuple(args, made):
    endless = len(args) == 2 and args[1] is ...
    readers = [_reader(arg, made) for arg in args if arg is not ... and arg != ()]

    def read(value, path):
        if not isinstance(value, list):
            raise Unfit(path, f"expected a list, got {_sort(value)}")
        if args and not endless and len(value) != len(readers):
            raise Unfit(path, f"expected {len(readers)} items, got {len(value)}")
        each = readers * len(value) if endless else readers or [None] * len(value)
        return tuple(r(one, f"{path}[{n}]") if r else one for n, (r, one) in enumerate(zip(each, value)))

    return read


def _enum(cls, _made):
    def read(value, path):
        try:
            return cls(value)
        except (ValueError, TypeError):
            known = ", ".join(repr(member.value) for member in cls)
            raise Unfit(path, f"{value!r} is none of {known}") from None

    return read


def _typed_dict(cls, made):
    readers = {name: _reader(hint, made) for name, hint in hints(cls).items()}
    readers = {name: reader for name, reader in readers.items() if reader}
    if not readers:
        return lambda value, path: value

    def read(value, path):
        return {
            key: readers[key](one, f"{path}.{key}") if key in readers else one
            for key, one in _map(value, path).items()
        }

    return read


def _named_tuple(cls, made):
    annotations = hints(cls)
    readers = [_reader(annotations.get(name, typing.Any), made) for name in cls._fields]
    least = len(readers) - len(cls._field_defaults)

    def read(value, path):
        if not isinstance(value, list) or not least <= len(value) <= len(readers):
            raise Unfit(path, f"expected a list of {', '.join(cls._fields)}")
        return cls(*(r(one, f"{path}.{f}") if r else one for r, f, one in zip(readers, cls._fields, value)))

    return read


def _dataclass(cls, made):
    annotations = hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    readers = {name: _reader(annotations.get(name, typing.Any), made) for name in fields}

    def read(value, path):
        given = _map(value, path)
        for key in given:
            if key not in fields:
                raise Unfit(path, f"{cls.__name__} has no field {key!r}")
        for name, field in fields.items():
            if name not in given and is_required(field):
                raise Unfit(path, f"{cls.__name__} needs the field {name!r}")
        read = {k: readers[k](one, f"{path}.{k}") if readers[k] else one for k, one in given.items()}
        try:
            return cls(**read)
        except (TypeError, ValueError) as error:
            raise Unfit(path, str(error)) from error

    return read


def _model(cls, _made):
    def read(value, path):
        try:
            return cls.model_validate(value)
        except ValueError as error:
            first = error.errors()[0] if hasattr(error, "errors") else {"loc": (), "msg": str(error)}
            steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
            raise Unfit(path + "".join(steps), first["msg"]) from None

    return read


def _map(value, path):
    if not isinstance(value, dict):
        raise Unfit(path, f"expected a map, got {_sort(value)}")
    return value


def _sort(value):
    names = {type(None): "nil", bool: "bool", str: "text", list: "a list", dict: "a map"}
    return names.get(type(value), type(value).__name__)
