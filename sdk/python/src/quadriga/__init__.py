"""What a Quadriga extension in Python imports.

    from quadriga import host

    def greet(name: str) -> str:
        host.log.info(f"greeting {name}")
        return f"Hello, {name}"

Every public function of the entry module can be called by the host and by other extensions.
Arguments and results are values: None, bool, int of 64 bits, float, str, bytes, list, dict and
aware datetime; a point in time with more than whole microseconds is a Timestamp.
"""

from . import host
from ._host import Timestamp
from .errors import QuadrigaError, Value

__all__ = ["QuadrigaError", "Timestamp", "Value", "host"]
__version__ = "0.1.0"
