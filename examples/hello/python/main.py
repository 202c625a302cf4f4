from quadriga import host


def greet(name: str) -> str:
    """Greets someone."""
    host.log.info(f"greeting {name}")
    return f"Hello, {name}"
