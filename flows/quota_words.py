"""What a quota has come to, in words for a terminal."""

from rich.console import Console

from flows.quotas import ClassQuota, QuotaReport

_SHOWN = 20
"""Most short classes that are named one by one."""


def print_quota(report: QuotaReport | None, console: Console) -> None:
    """Print how far the classes are; nothing without a quota."""
    for line in quota_lines(report) if report is not None else ():
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def quota_lines(report: QuotaReport) -> list[str]:
    """Say how far the classes are, and which stay short and why, the shortest first."""
    wanted = f"quota of {report.min_per_class} written samples a class"
    if report.waits_for:
        return [
            f"{wanted}: extra samples are planned when the slice is finished, "
            f"{report.waits_for} of its shards are left"
        ]
    made = report.extra_written + sum(sum(each.dropped.values()) for each in report.classes)
    lines = [
        f"{wanted}: {report.extra} extra samples planned in {report.rounds} rounds (at most "
        f"{report.most_extra}), {made} made, {report.extra_written} of them written; "
        f"{len(report.short)} classes stay short"
    ]
    short = sorted(report.short, key=lambda each: (each.total, each.class_id))
    lines += [_line(each, report.min_per_class) for each in short[:_SHOWN]]
    if len(short) > _SHOWN:
        lines.append(
            f"and {len(short) - _SHOWN} more; 'magicseg plan' with the same options and --json "
            "names all"
        )
    return lines


def _line(each: ClassQuota, wanted: int) -> str:
    lost = sum(each.dropped.values())
    reasons = sorted(each.dropped.items(), key=lambda item: (-item[1], item[0]))
    why = ": " + ", ".join(f"{reason} {count}" for reason, count in reasons) if lost else ""
    return (
        f"class {each.name}: {each.total} of {wanted}; of {each.planned} samples of the slice "
        f"{each.written} were written, of {each.extra} extra samples {lost} were dropped{why}; "
        f"{each.short}"
    )
