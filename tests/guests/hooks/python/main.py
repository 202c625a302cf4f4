"""The tests' guest for hooks: the same behaviour in each language."""

from quadriga import host


def mark(plan: dict) -> dict:
    """Adds a step under its language: how many there were."""
    return {"steps": {"python": len(plan["steps"])}}


def object(plan: dict) -> str | None:
    return "python objects" if plan["title"] == "bad" else None


def fail(plan: dict) -> None:
    raise Exception("python fails")


def late(plan: dict) -> None:
    while True:
        pass


def around(plan: dict) -> str | None:
    if plan["title"] == "cached":
        return "from python"
    made = host.proceed({"steps": {"python": len(plan["steps"])}})
    return None if plan["title"] == "look" else f"{made}, python"


def again(plan: dict) -> None:
    host.call("app.host", "plan")
