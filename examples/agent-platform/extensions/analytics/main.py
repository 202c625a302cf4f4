"""Statistics over what steps took."""

from statistics import fmean, median, pstdev

from quadriga import host


def collect(metrics: dict) -> None:
    """Keeps what a step took, and tells of one that took far longer than others."""
    known = host.kv.get("steps") or []
    step = {"plan": metrics["plan"], "step": metrics["step"], "took": metrics["ended"] - metrics["began"]}
    usual = median([it["took"] for it in known] or [step["took"]])
    host.kv.put("steps", [*known, step])
    if step["took"] > 3 * usual:
        host.emit("trace.outlier", {**step, "usual": usual})


def summary(plan: str) -> dict:
    """How long the steps of a plan took, in minutes."""
    steps = [it for it in host.kv.get("steps") or [] if it["plan"] == plan]
    if not steps:
        raise LookupError(f"no step of {plan} was done")
    took = [it["took"] for it in steps]
    return {
        "steps": len(took),
        "mean": round(fmean(took), 2),
        "median": median(took),
        "deviation": round(pstdev(took), 2),
        "longest": max(steps, key=lambda it: it["took"])["step"],
    }
