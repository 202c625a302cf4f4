"""Runs a loose piece of source code. If it defines a function `main`, that is called with the
parameters, and what it returns is what the source comes to. Otherwise that is the value of its last
expression, or None; the parameters are in the list `parameters`.
"""

import ast
import asyncio
import inspect
import os

_FILE = os.path.join(os.path.dirname(__file__), "snippet.py")


def run(*parameters):
    with open(_FILE, "rb") as file:
        tree = ast.parse(file.read(), _FILE)
    last = tree.body[-1] if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    if last:
        tree.body.pop()
    names = {"__builtins__": __builtins__, "__name__": __name__, "__file__": _FILE, "parameters": list(parameters)}
    exec(compile(tree, _FILE, "exec", dont_inherit=True), names)
    value = eval(compile(ast.Expression(last.value), _FILE, "eval", dont_inherit=True), names) if last else None
    if callable(names.get("main")):
        value = names["main"](*parameters)
    return asyncio.run(_wait(value)) if inspect.isawaitable(value) else value


async def _wait(value):
    return await value
