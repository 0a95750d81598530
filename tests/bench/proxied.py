"""Through a proxy and directly: requests per second, CPU per request, event streams."""

import statistics
import sys

from rig import Direct, Floor, Nginx, Parry, Rig, nginx_path

FAIL_EVERY = 10
EVERY_MS = 250  # between two events of a stream
EVENTS = 8000   # per second in all, at most: beyond that a shared machine measures its own queue


def proxies():
    return [Nginx, Floor, Parry] if nginx_path() else [Floor, Parry]


def expect(true, what):
    if not true:
        raise RuntimeError("it does not add up: " + what)


# --- Requests -----------------------------------------------------------------------------------------------


def check_counts(subject, run, asked, failed, fail_every):
    """What the load saw against what the provider did; only where the number of requests was fixed."""
    wanted = run["started"] // fail_every if fail_every else 0
    expect(run["ok"] + run["errors_503"] == run["started"] and not run["others"], f"{subject.name}: {run}")
    expect(failed == wanted, f"{subject.name}: the provider failed {failed} times, {wanted} were asked for")
    if isinstance(subject, Direct):
        expect(run["errors_503"] == wanted and asked == run["started"], f"{subject.name}: {run}, {asked} asked")
    else:  # what was not tried again reached the client
        expect(asked == run["started"] + failed - run["errors_503"], f"{subject.name}: {run}, {asked} asked")
        expect(run["errors_503"] <= wanted // 2, f"{subject.name} hardly tries again: {run}")


def slice_of(rig, subject, fail_every, smoke):
    before = rig.provider.stats()
    if smoke:
        run = rig.load(subject, requests=300, connections=8, fail_every=fail_every)
    else:
        run = rig.load(subject, seconds=0.5, warm=0.1, fail_every=fail_every)
    after = rig.provider.stats()
    expect(not run["others"], f"{subject.name}: {run['others']} answers were neither 200 nor 503")
    if smoke:
        check_counts(subject, run, after["requests"] - before["requests"], after["failed"] - before["failed"],
                     fail_every)
    return run


def by(rows, base):
    """Median of each round's ratio to the base's CPU in the same round."""
    if base not in rows:
        return dict.fromkeys(rows)
    return {name: statistics.median(a / b for a, b in zip(row["cpu"], rows[base]["cpu"])) if row["cpu"][0] else None
            for name, row in rows.items()}


def requests_at(rig, subjects, fail_every, options):
    rows = {subject.name: {"name": subject.name, "per_second": [], "cpu": [], "p50": [], "p99": [], "failed": 0,
                           "answers": 0} for subject in subjects}
    for _ in range(options.rounds):
        for subject in subjects:
            run = slice_of(rig, subject, fail_every, options.smoke)
            row = rows[subject.name]
            row["per_second"].append(run["count"] / run["seconds"])
            row["cpu"].append(run["cpu"] / run["count"] * 1e6)
            row["p50"].append(run["p50"])
            row["p99"].append(run["p99"])
            row["failed"] += run["errors_503"]
            row["answers"] += run["count"]
    nginx, floor = by(rows, "nginx"), by(rows, "floor")
    return [{**row, "by_nginx": nginx[name], "by_floor": floor[name]} for name, row in rows.items()]


def requests(options):
    """Small chat completions over 64 kept connections: direct, nginx, the floor program, parry; parry with warnings only
    in its log, too, because the others log nothing."""
    with Rig() as rig:
        subjects = [rig.start(Direct)] + [rig.start(kind) for kind in proxies()]
        subjects.append(rig.start(Parry, name="parry, log warn", arguments=("--log-level", "warn")))
        return {"0 %": requests_at(rig, subjects, None, options),
                f"{100 // FAIL_EVERY} %": requests_at(rig, subjects, FAIL_EVERY, options)}


# --- Streams --------------------------------------------------------------------------------------------------


def streams_through(rig, kind, count, options):
    """A fresh process each time: memory that an earlier run left behind would hide this run's."""
    subject = rig.start(kind)
    wish = f"every={interval(count, options)}"
    rig.load(subject, requests=64, connections=16)
    rig.load(subject, streams=True, connections=min(20, count), wish=wish, seconds=0.3, warm=0)
    before = rig.provider.stats()
    run = rig.load(subject, streams=True, connections=count, wish=wish, warm=0.5, seconds=1 if options.smoke else 4)
    after = rig.provider.stats()
    expect(after["streams"] - before["streams"] == count, f"{subject.name}: {count} streams were to be opened")
    expect(0 < run["count"] <= after["events"] - before["events"], f"{subject.name}: more events than were sent")
    rig.stop(subject)
    return run


def interval(count, options):
    return 50 if options.smoke else max(EVERY_MS, count * 1000 // EVENTS)


def fitting(rig, wanted):
    """A proxy holds two descriptors per stream."""
    most = (rig.descriptors - 200) // 2
    if wanted > most:
        print(f"{rig.descriptors} descriptors: {most} streams instead of {wanted}", file=sys.stderr)
    return min(wanted, most)


def streams(options):
    """Slow event streams: memory, CPU and lag. The lag is an event's age when the client has it; what a proxy adds to it is
    told per round, beside the floor's in that round, as a machine's noise is often more than either."""
    kinds = [Direct] + proxies()
    rows = {kind.name: [] for kind in kinds}
    with Rig() as rig:
        count = fitting(rig, options.streams)
        for _ in range(max(1, options.rounds // 3)):
            for kind in kinds:
                rows[kind.name].append(streams_through(rig, kind, count, options))
    found = []
    for kind in kinds:
        runs = rows[kind.name]
        direct = rows["direct"]
        proxied = kind is not Direct
        middle = {key: statistics.median(run[key] for run in runs) for key in ("p50", "p99")}
        found.append({"name": kind.name, **middle, "p99s": [run["p99"] for run in runs],
                      "kib": [(run["resident"] - run["resident_before"]) / count for run in runs] if proxied else [],
                      "cpu": [run["cpu"] / run["count"] * 1e6 for run in runs] if proxied else [],
                      **{"added_" + key: [run[key] - base[key] for run, base in zip(runs, direct)]
                         for key in ("p50", "p99")},
                      "over_floor_p99": [run["p99"] - floor["p99"] for run, floor in zip(runs, rows["floor"])]})
    return {"streams": count, "every": interval(count, options), "rows": found}
