"""The benchmark: each part in one run, its subjects interleaved slice by slice, so that the machine's noise hits all alike.

    run.py [--json] [--smoke] [--rounds N] [--streams N] [PART...]

Parts: requests errors decide calls reload streams reloading. Figures are medians over the rounds with the least and the
most; ratios are medians of each round's own ratio. Never a gate on time: --smoke runs every part with a few hundred
requests and fails only when something does not work or does not add up.
Parts: requests errors decide bindings reload streams reloading. Figures are medians over the rounds with the least and
the most; ratios are medians of each round's own ratio. Never a gate on time: --smoke runs every part with a few hundred requests and
fails only when something does not work or does not add up.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys

import live
import proxied
from rig import PROGRAMS, SHARE, Rig, nginx_path


def lines_of(program, *arguments):
    done = subprocess.run([PROGRAMS / program, *map(str, arguments)], capture_output=True, timeout=600, check=False)
    if done.returncode:
        raise RuntimeError(f"{program}: {done.stderr.decode(errors='replace')}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def errors(options):
    """What one error event costs without any I/O."""
    return lines_of("bench_ask", *((1, 50) if options.smoke else (options.rounds, 4000)))


def decide(options):
    """What a host pays for a decision, and for a report."""
    return lines_of("bench_decide", *((1, 50) if options.smoke else (options.rounds, 20000)))


def calls(options):
    """What handing a call to parry costs a host, beside making it with curl's multi interface alone."""
    with Rig() as rig:
        return lines_of("bench_call", rig.provider.port, *((1, 100) if options.smoke else (options.rounds, 10000)))[0]


def bindings(options):
    """The same decision, asked from C and from each language whose binding was built (a sanitized library is for C only)."""
    asked = 50 if options.smoke else 20000
    rows = [{"host": "C", "ns": row["ns"]} for row in lines_of("bench_decide", options.rounds, asked, "retry")
            if row["name"] == "retry"]
    built, sources = PROGRAMS.parent, SHARE.parent / "bindings"
    library, package = built / "libparry.so", built / "bindings" / "node" / "package"
    if os.environ.get("PARRY_SANITIZED"):
        return rows
    if library.exists():
        told = json.loads(output_of(sys.executable, sources / "python" / "bench.py", "--json", "--count", asked,
                                    PARRY_LIBRARY=library))
        rows += [{"host": "Python", "ns": told["python_decide_ns"]},
                 {"host": "Python, its structs filled once", "ns": told["python_decide_bare_ns"]}]
    if package.exists():
        lines = output_of("node", sources / "node" / "bench.js", package, asked).splitlines()
        told = dict(line.split(None, 1) for line in lines)
        rows.append({"host": "Node", "ns": float(told["node.decide"].split()[0])})
    return rows


def output_of(*command, **environment):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=600, check=False,
                          env={**os.environ, **{name: str(value) for name, value in environment.items()}})
    if done.returncode:
        raise RuntimeError(f"{command[1]}: {done.stderr}")
    return done.stdout


def reload(options):
    """Ten policies: compile and check, warm and commit; and from rename() to the first answer that shows it."""
    found = lines_of("bench_reload", 3 if options.smoke else 50)[0]
    with Rig() as rig:
        found["live"] = {"without tests": live.save_to_live(rig, False, 2 if options.smoke else 2 * options.rounds)}
        if not options.smoke:  # they take long in sanitized builds, and have a test of their own
            found["live"]["with tests"] = live.save_to_live(rig, True, 3)
    return found


PARTS = {"requests": proxied.requests, "errors": errors, "decide": decide, "calls": calls,
         "bindings": bindings, "reload": reload,
         "streams": proxied.streams, "reloading": live.reloading}


# --- Printing ---------------------------------------------------------------------------------------------


def table(head, rows):
    rows = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                               for i, (cell, width) in enumerate(zip(row, widths))).rstrip())


def spread(values, form="%.1f"):
    return f"{form % statistics.median(values)} [{form % min(values)}..{form % max(values)}]"


def ratio(value):
    return "-" if value is None else "%.2f" % value


def print_requests(found):
    for share, rows in found.items():
        print(f"\nProxied requests, {share} of them answered with 503 first (CPU of the proxy, µs per request)")
        table(["", "requests/s", "CPU", "x nginx", "x floor", "p50 µs", "p99 µs", "503 seen"],
              [[row["name"], "%.0f" % statistics.median(row["per_second"]),
                spread(row["cpu"]) if any(row["cpu"]) else "-", ratio(row["by_nginx"]), ratio(row["by_floor"]),
                "%.0f" % statistics.median(row["p50"]), "%.0f" % statistics.median(row["p99"]),
                "%.2f %%" % (100 * row["failed"] / row["answers"])] for row in rows])


def print_errors(found):
    print("\nOne error event, no I/O (ns: median, least)")
    table(["", "ns", "least"], [[f"{row['group']}: {row['name']}", "%.0f" % row["ns"], "%.0f" % row["least"]]
                                for row in found])


def print_decide(found):
    print("\nA host's decision (ns of processor time: median, least; allocations outside Lua's own)")
    table(["", "ns", "least", "allocations"],
          [[f"{row['group']}: {row['name']}", "%.0f" % row["ns"], "%.0f" % row["least"],
            "-" if row["allocations"] is None else "%.2f" % row["allocations"]] for row in found])


def print_calls(found):
    ratios = [parry / floor for parry, floor in zip(found["parry"], found["floor"])]
    print("\nA host's calls, 16 at a time (CPU of the whole process, µs a call)")
    table(["", "CPU", "x curl"], [["curl multi", spread(found["floor"]), ""],
                                  ["parry_call, one thread", spread(found["parry"]), spread(ratios, "%.2f")]])
    for start in found["start"]:
        print(f"  an engine with {start['threads']} threads: parry_new {start['ms']} ms, {start['kib']} KiB resident")
def print_bindings(found):
    print("\nA decision of the shipped chain, by the language of the host (ns, median)")
    table(["", "ns", "of C"],
          [[row["host"], "%.0f" % row["ns"], "%.1f" % (row["ns"] / found[0]["ns"])] for row in found])


def print_reload(found):
    print("\nReload of ten policies (ms)")
    table(["", "median", ""], [
        ["check (compile, declare)", "%.2f" % found["stage"], ""],
        ["warm and commit", "%.2f" % found["commit"], ""],
        ["both", "%.2f" % found["both"], "most %.2f" % found["most"]],
        *([f"save -> live, {name}, minus debounce", spread(values), ""] for name, values in found["live"].items())])


def print_streams(found):
    print(f"\nEvent streams: {found['streams']}, an event every {found['every']} ms each (plain TCP both sides)")
    table(["", "KiB a stream", "CPU µs an event", "lag p50 µs", "lag p99 µs", "added p50", "added p99"],
          [[row["name"], spread(row["kib"]) if row["kib"] else "-", spread(row["cpu"]) if row["cpu"] else "-",
            "%.0f" % row["p50"], "%.0f" % row["p99"], spread(row["added_p50"], "%.0f"), spread(row["added_p99"], "%.0f")]
           for row in found["rows"]])
    rows = {row["name"]: row for row in found["rows"]}
    floor, parry = rows["floor"]["added_p99"], rows["parry"]["added_p99"]
    noise = max(rows["direct"]["p99s"]) - min(rows["direct"]["p99s"])
    print(f"  p99 added to an event: floor {spread(floor, '%.0f')} µs, parry {spread(parry, '%.0f')} µs; parry over floor in "
          f"the same round {spread(rows['parry']['over_floor_p99'], '%.0f')} µs; direct p99 differs by {noise:.0f} µs "
          "between rounds")


def print_reloading(found):
    print(f"\np99 at {found['rate']} requests/s, quiet and while reloading all the time (µs)")
    table(["", "p50", "p99"], [["quiet", spread(found["quiet"]["p50"]), spread(found["quiet"]["p99"])],
                               ["reloading", spread(found["busy"]["p50"]), spread(found["busy"]["p99"])],
                               ["ratio", "", "%.2f" % found["ratio"]]])
    print(f"  {found['reloads']} reloads, {found['failed']} calls failed")


PRINT = {"requests": print_requests, "errors": print_errors, "decide": print_decide, "calls": print_calls,
         "bindings": print_bindings,
         "reload": print_reload, "streams": print_streams, "reloading": print_reloading}


# --- The whole --------------------------------------------------------------------------------------------


def version_of(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return None
    return (done.stdout + done.stderr).strip() or None


def about():
    return {"cores": len(os.sched_getaffinity(0)), "kernel": platform.release(), "machine": platform.machine(),
            "commit": version_of("git", "-C", str(SHARE), "describe", "--always", "--dirty"),
            "nginx": nginx_path() and version_of(nginx_path(), "-v")}


def parse():
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output instead of tables")
    parser.add_argument("--smoke", action="store_true", help="a few hundred requests: does every part run and add up?")
    parser.add_argument("--rounds", type=int, default=9, help="slices per subject (9)")
    parser.add_argument("--streams", type=int, default=2000, help="open streams (2000)")
    parser.add_argument("parts", nargs="*", metavar="PART", help=" ".join(PARTS))
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"no part {unknown[0]!r}: there are {', '.join(PARTS)}")
    if options.rounds < 1 or options.streams < 1:
        parser.error("--rounds and --streams are 1 or more")
    return options


def main():
    options = parse()
    if options.smoke:
        options.rounds, options.streams = 1, min(options.streams, 40)
    found = {"about": about(), "parts": {}}
    say = sys.stderr if options.json else sys.stdout
    print(f"{found['about']['cores']} cores, Linux {found['about']['kernel']}, commit {found['about']['commit']}",
          file=say, flush=True)
    if not found["about"]["nginx"]:
        print("nginx is not installed: left out (./dev deps bench)", file=say, flush=True)
    for part in options.parts or PARTS:
        found["parts"][part] = PARTS[part](options)
        if not options.json:
            PRINT[part](found["parts"][part])
            sys.stdout.flush()
    if options.json:
        print(json.dumps(found, indent=2))
    if options.smoke:
        print(f"{len(found['parts'])} passed, 0 failed, {0 if found['about']['nginx'] else 1} skipped", file=say)


if __name__ == "__main__":
    main()
