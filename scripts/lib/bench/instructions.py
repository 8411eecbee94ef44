"""Instructions and allocations of the pure parts: counted, not timed, so that a baseline can be kept.

valgrind presents one and the same processor to the program on every x86-64 machine with AVX2, so libraries that choose
their instructions at run time choose the same; with the toolchain pinned, figures differ between runs and machines by
hash seeds and the C library's `memcpy` only, well within the tolerance.
"""

import json
import os
import platform
import re
import subprocess
import tempfile

from .rounds import ROOT, Failed, needs, run, say, target

BASELINE = os.path.join(ROOT, "instructions", "baseline.json")
# The function below which callgrind counts (instructions/src/harness.rs).
COUNTED = "*harness::measured*"
# The same in other words: of two options for one pattern callgrind heeds the first only.
DUMPED = "*::measured*"
# How far a figure may be above the baseline, as a share and in instructions.
TOLERANCE = 0.05
TOLERANCE_FLAT = 2
# callgrind counts each byte that `rep movsb` and `rep stosb` move as an instruction, where the processor moves many at
# once: the C library leaves them alone below this size.
PLAIN_MOVES = "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824"
# Allocations an operation that are none: memory of a log taken for thousands of messages.
ALLOCATIONS_FLAT = 0.01


def instructions(options):
    """Prints the table and judges it by the baseline, or records that. Returns the exit code."""
    if platform.machine() != "x86_64" or not re.search(r"^flags.*\bavx2\b", read("/proc/cpuinfo"), re.MULTILINE):
        say("skipped: the baseline holds for x86-64 with AVX2 only")
        print("0 passed, 0 failed, 1 skipped")
        return 0
    needs(("valgrind", "valgrind"))
    cases = counted(build())
    if options.record:
        record(cases)
    known = json.loads(read(BASELINE)) if os.path.exists(BASELINE) else {}
    table(cases, known)
    if options.json:
        print(json.dumps({"case": "instructions", "rows": cases, "baseline": known}))
    return judge(cases, known)


def build():
    say("building flux-instructions (release)")
    run(["cargo", "build", "--release", "--quiet", "-p", "flux-instructions"], cwd=ROOT)
    return os.path.join(target(), "release", "flux-instructions")


def counted(program):
    """Name of a case -> who -> instructions and allocations of one operation."""
    say("counting (valgrind's callgrind)")
    with tempfile.TemporaryDirectory(prefix="flux-bench-") as folder:
        out = os.path.join(folder, "out")
        command = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}", f"--toggle-collect={COUNTED}",
                   f"--dump-after={DUMPED}", program]
        done = subprocess.run(command, text=True, capture_output=True, timeout=600, check=False,
                              env={**os.environ, "GLIBC_TUNABLES": PLAIN_MOVES})
        if done.returncode != 0:
            raise Failed(f"flux-instructions under valgrind ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        cases = {}
        for number, line in enumerate(done.stdout.splitlines(), 1):
            case = json.loads(line)
            path = f"{out}.{number}"
            # The loop that repeats an operation costs two instructions a turn, which is not worth taking off.
            found = os.path.exists(path) and re.search(r"^(?:totals|summary): (\d+)", read(path), re.MULTILINE)
            if not found:
                raise Failed(f"callgrind has no figure for `{case['name']}` ({case['who']}): was `{COUNTED}` inlined?")
            cases.setdefault(case["name"], {})[case["who"]] = {
                "instructions": round(int(found[1]) / case["operations"], 1),
                "allocations": round(case["allocations"] / case["operations"], 3),
            }
    return cases


def record(cases):
    """One line a case, so that a change of the file shows what became better or worse."""
    lines = [f"  {json.dumps(name)}: {json.dumps(case['ours'])}" for name, case in cases.items()]
    with open(BASELINE, "w") as file:
        file.write("{\n" + ",\n".join(lines) + "\n}\n")
    say(f"recorded {os.path.relpath(BASELINE, ROOT)}")


def table(cases, known):
    print(f"\ninstructions for each operation, allocations behind the stroke\n  {'':<34}{'ours':>15}{'baseline':>15}   others (x ours)")
    for name, case in cases.items():
        ours = case["ours"]
        others = "   ".join(f"{who} {cell(figures)} ({figures['instructions'] / ours['instructions']:.2f} x)"
                            for who, figures in case.items() if who != "ours")
        print(f"  {name:<34}{cell(ours):>15}{cell(known[name]) if name in known else '-':>15}   {others}")


def cell(figures):
    return f"{figures['instructions']:,.0f} | {figures['allocations']:.2g}"


def judge(cases, known):
    """By the baseline. The last line is what scripts/test counts."""
    failed = 0
    for name, case in cases.items():
        ours, was = case["ours"], known.get(name)
        why = None
        if was is None:
            why = "is not in the baseline"
        elif ours["instructions"] > was["instructions"] * (1 + TOLERANCE) + TOLERANCE_FLAT:
            why = f"{ours['instructions']:,} instructions, {was['instructions']:,} in the baseline"
        elif ours["allocations"] > was["allocations"] + ALLOCATIONS_FLAT:
            why = f"{ours['allocations']} allocations, {was['allocations']} in the baseline"
        elif ours["instructions"] < was["instructions"] * (1 - TOLERANCE) - TOLERANCE_FLAT:
            say(f"better: {name}: {ours['instructions']:,} instructions, {was['instructions']:,} in the baseline")
        if why:
            failed += 1
            say(f"scripts/bench: {name}: {why}")
    for name in known.keys() - cases.keys():
        failed += 1
        say(f"scripts/bench: {name}: in the baseline, but not measured")
    if failed:
        say("where the change is meant: scripts/bench instructions --record, and commit instructions/baseline.json")
    print(f"{len(cases.keys() | known.keys()) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


def read(path):
    with open(path) as file:
        return file.read()
