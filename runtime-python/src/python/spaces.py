"""Gives each extension a module space of its own inside one interpreter.

The module `helpers` of an extension is known to the interpreter as `@publisher-name-1.helpers`, so
that two extensions, or two generations of one, never meet in `sys.modules`. Inside, the author's
own names work: each module runs with a `__builtins__` whose `__import__` adds the prefix, which
holds for lazy imports on any thread as well. What the standard library looks up on the author's
behalf (`importlib.import_module` and its like) finds the extension by walking the stack.

Compiled modules ask for each other by their plain names from C and can be loaded once per process.
A `vendor` folder that holds any is therefore shared by the process, and a second, different copy
is refused.
"""

import builtins
import filecmp
import gc
import importlib
import importlib.metadata
import importlib.util
import itertools
import linecache
import os
import sys
import typing
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
    all_suffixes,
)

KEY = "__quadriga__"

_import = builtins.__import__
_import_module = importlib.import_module
_find_spec = importlib.util.find_spec
_numbers = itertools.count(1)
_spaces = {}
_shared = {}  # top-level name -> the vendor folder that serves it for the whole process


class Conflict(ImportError):
    """Two extensions bring different copies of code that a process can load only once."""


class Space:
    """The modules of one loaded extension."""

    def __init__(self, extension, root, entry, host, sdk):
        self.extension = extension
        self.root = root
        self.folder = os.path.dirname(entry)
        self.vendor = os.path.join(root, "vendor")
        self.name = f"@{extension.replace('.', '-')}-{next(_numbers)}"
        self.prefix = self.name + "."
        self.host = host
        self.sdk = sdk
        self.compiled = {}  # path -> the code of a source that was compiled before it is imported
        own, _ = _scan(self.folder, skip=self.vendor)
        own.add(os.path.basename(entry).removesuffix(".py"))
        vendored, compiled = _scan(self.vendor)
        vendored -= own | sys.stdlib_module_names
        self.private = own | {"quadriga"}
        self.public = set()
        if compiled:
            _claim(vendored, self.vendor, compiled)
            self.public = vendored
        else:
            self.private |= vendored
        self.builtins = dict(vars(builtins), **{KEY: self, "__import__": _importer(self)})
        package = ModuleSpec(self.name, None, is_package=True)
        package.submodule_search_locations[:] = [self.folder, self.vendor]
        _spaces[self.name] = self
        sys.modules[self.name] = importlib.util.module_from_spec(package)
        sys.modules[self.prefix + "quadriga._host"] = host

    def owns(self, name):
        return name.partition(".")[0] in self.private

    def strip(self, text):
        """The author's names instead of the interpreter's."""
        return text.replace(self.prefix, "")

    def find_spec(self, fullname, path):
        name = fullname.removeprefix(self.prefix)
        if name.partition(".")[0] == "quadriga":
            return self._find_sdk(fullname, name)
        spec = PathFinder.find_spec(fullname, path)
        loader = _LOADERS.get(type(spec.loader)) if spec else None
        if loader:
            spec.loader.__class__ = loader
        return spec

    def _find_sdk(self, fullname, name):
        code = self.sdk.get(name)
        return code and ModuleSpec(fullname, _Sdk(code), is_package=name == "quadriga")

    def close(self):
        """Forgets its modules. Shared ones stay: CPython cannot unload compiled code."""
        if _spaces.pop(self.name, None) is None:
            return
        for name in [n for n in sys.modules if n == self.name or n.startswith(self.prefix)]:
            sys.modules.pop(name, None)
        for name in self.public:
            users = (space for space in _spaces.values() if name in space.public)
            if name not in sys.modules and not any(users):
                _shared.pop(name, None)
        inside = self.root + os.sep
        for cache in (sys.path_importer_cache, linecache.cache):
            for path in [p for p in cache if p == self.root or p.startswith(inside)]:
                cache.pop(path, None)
        # typing keeps what generic types were applied to.
        for cleanup in getattr(typing, "_cleanups", ()):
            cleanup()
        self.builtins.clear()
        gc.collect()


class _Finder:
    """First on `sys.meta_path`: private names, then shared ones."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):
        if fullname.startswith("@"):
            space = _spaces.get(fullname.partition(".")[0])
            return space.find_spec(fullname, path) if space and path is not None else None
        folder = _shared.get(fullname)
        return PathFinder.find_spec(fullname, [folder]) if folder else None

    @staticmethod
    def find_distributions(context):
        space = current()
        if space is None:
            return ()
        own = importlib.metadata.DistributionFinder.Context(name=context.name, path=[space.vendor])
        return importlib.metadata.MetadataPathFinder.find_distributions(own)

    @staticmethod
    def invalidate_caches():
        """Keeps nothing."""


class _Private:
    """Runs a module with the builtins of its extension."""

    def exec_module(self, module):
        space = _spaces[module.__name__.partition(".")[0]]
        vars(module)["__builtins__"] = space.builtins
        super().exec_module(module)


class _PrivateSource(_Private, SourceFileLoader):
    def get_code(self, fullname):
        space = _spaces[fullname.partition(".")[0]]
        return space.compiled.pop(self.path, None) or super().get_code(fullname)


class _PrivateSourceless(_Private, SourcelessFileLoader):
    pass


_LOADERS = {SourceFileLoader: _PrivateSource, SourcelessFileLoader: _PrivateSourceless}


class _Sdk:
    """Loads a module of the SDK that is built into the host."""

    def __init__(self, code):
        self.code = code

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(self.code, vars(module))


def current():
    """The extension whose code is the nearest on the stack."""
    frame = sys._getframe(1)
    while frame is not None:
        space = frame.f_builtins.get(KEY)
        if space is not None:
            return space
        frame = frame.f_back
    return None


def install():
    sys.meta_path.insert(0, _Finder)
    importlib.import_module = import_module
    importlib.util.find_spec = find_spec


def import_module(name, package=None):
    """importlib.import_module, by the names of the calling extension."""
    return _import_module(*_resolve(current(), name, package))


def find_spec(name, package=None):
    """importlib.util.find_spec, by the names of the calling extension."""
    return _find_spec(*_resolve(current(), name, package))


def _resolve(space, name, package):
    if space is None:
        return name, package
    if name.startswith("."):
        return name, space.prefix + package if package and space.owns(package) else package
    return space.prefix + name if space.owns(name) else name, package


def _importer(space):
    def __import__(name, globals=None, locals=None, fromlist=(), level=0):
        top = name.partition(".")[0]
        try:
            if level or top not in space.private:
                if not level and top in _shared and top not in space.public:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
                return _import(name, globals, locals, fromlist, level)
            module = _import(space.prefix + name, None, None, fromlist or ("__name__",), 0)
            return module if fromlist else sys.modules[space.prefix + top]
        except ImportError as error:
            if error.name and error.name.startswith(space.prefix):
                error.name = space.strip(error.name)
                error.msg = space.strip(error.msg)
                error.args = (error.msg,)
            raise

    return __import__


def _scan(folder, skip=None):
    """The importable names in a folder, and one of the compiled files if there are any."""
    names, compiled = set(), None
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return names, compiled
    for entry in entries:
        if entry.is_dir():
            if entry.path == skip or entry.name == "__pycache__":
                continue
            compiled = compiled or _compiled(entry.path)
            package = any(os.path.isfile(f"{entry.path}/__init__{s}") for s in all_suffixes())
            if entry.name.isidentifier() and (package or entry.name not in sys.stdlib_module_names):
                names.add(entry.name)
        elif suffix := next((s for s in all_suffixes() if entry.name.endswith(s)), None):
            names.add(entry.name.removesuffix(suffix))
            compiled = compiled or (entry.path if suffix in EXTENSION_SUFFIXES else None)
    return names, compiled


def _compiled(folder):
    for where, _, files in os.walk(folder):
        for file in files:
            if file.endswith(tuple(EXTENSION_SUFFIXES)):
                return os.path.join(where, file)
    return None


def _claim(names, folder, compiled):
    for name in sorted(names):
        taken = _shared.get(name)
        if taken and taken != folder and not _same(taken, folder, name):
            raise Conflict(
                f"vendor/ holds compiled code ({os.path.relpath(compiled, folder)}), which a process can "
                f"load only once, and {name!r} is already served from another copy, {taken}"
            )
    for name in names:
        _shared.setdefault(name, folder)


def _same(one, other, name):
    """Whether two folders hold the same files for a top-level name."""

    def files(folder):
        for top in os.listdir(folder):
            if top == name or top.partition(".")[0] == name:
                path = os.path.join(folder, top)
                for where, _, names in os.walk(path) if os.path.isdir(path) else [(folder, (), [top])]:
                    if not where.endswith("__pycache__"):
                        yield from (os.path.relpath(os.path.join(where, n), folder) for n in names)

    listed = sorted(files(one))
    return listed == sorted(files(other)) and all(
        filecmp.cmp(os.path.join(one, file), os.path.join(other, file), shallow=False) for file in listed
    )
