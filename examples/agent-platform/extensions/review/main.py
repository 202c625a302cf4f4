"""Has plans look at what they publish before they do."""

from quadriga import host


def review(plan: dict) -> dict | None:
    """Puts a review before each step that publishes: a JSON Merge Patch of the plan."""
    steps = {}
    for name, step in plan["steps"].items():
        if step["needs"] == "publish":
            steps[f"review-{name}"] = {"needs": "review", "after": step["after"], **host.config()}
            steps[name] = {"after": [f"review-{name}"]}
    return {"steps": steps} if steps else None
