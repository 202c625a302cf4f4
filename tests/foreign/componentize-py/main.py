"""A component that componentize-py made of the published WIT and a MessagePack library of PyPI:
nothing in it is ours.
"""

import traceback

import umsgpack
from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.guest import Description, Method, Parameter
from wit_world.imports import host
from wit_world.imports.types import Error


def echo(value):
    """Returns what it is given."""
    return value


def relay(extension, method, value):
    return umsgpack.unpackb(host.call(extension, method, umsgpack.packb([value])))


def fail(message):
    raise ValueError(message)


METHODS = {
    "echo": (echo, ["value"]),
    "relay": (relay, ["extension", "method", "value"]),
    "fail": (fail, ["message"]),
}


class Guest(exports.Guest):
    def describe(self) -> Description:
        methods = [
            Method(
                name=name,
                doc=function.__doc__ or "",
                parameters=[Parameter(name=parameter, ty=None, optional=False) for parameter in parameters],
                returns=None,
                streams=False,
                input=None,
                output=None,
            )
            for name, (function, parameters) in METHODS.items()
        ]
        return Description(protocol="0.1.0", sdk="componentize-py", features=["host-calls"], methods=methods)

    def call(self, method: str, arguments: bytes) -> bytes:
        try:
            function, _ = METHODS[method]
            return umsgpack.packb(function(*umsgpack.unpackb(arguments, use_tuple=False)))
        except Err as error:
            raise Err(passed_on(error.value)) from error
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            raise Err(Error("extension_error", message, None, None, traceback.format_exc(), None)) from error


def passed_on(error: Error) -> Error:
    """An error of the host, or of another extension, with itself as the cause."""
    fields = dict(vars(error), cause=error.cause and umsgpack.unpackb(error.cause))
    cause = {name: value for name, value in fields.items() if value is not None}
    return Error(
        error.code, error.message, error.hint, None, traceback.format_exc(), umsgpack.packb(cause)
    )
