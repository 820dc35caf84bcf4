"""Compare the mutants that survived with those that survivors.toml explains.

    python tests/mutation/survivors.py [--write] [mutmut's patterns of mutants …]

Run where mutmut has run. A survivor is known by its function and by what was put in for what, not by
its number or its line. Fails when one is not explained. ``--write`` adds the missing ones, to be explained,
and takes out those of the same modules that do not survive any more.
"""

from __future__ import annotations

import fnmatch
import json
import subprocess
import sys
import tomllib
from pathlib import Path

KNOWN = Path(__file__).with_name("survivors.toml")
UNEXPLAINED = "TO BE EXPLAINED"
Key = tuple[str, str, str]


def mutmut(*arguments: str) -> str:
    return subprocess.run(["mutmut", *arguments], capture_output=True, text=True, check=True).stdout


def matches(name: str, patterns: list[str]) -> bool:
    """Whether mutmut was asked for what has this name."""
    return not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def survivors(patterns: list[str]) -> list[Key]:
    """Each survivor: its function, the code that was there, and what the mutant has instead."""
    keys: list[Key] = []
    for line in mutmut("results").splitlines():
        name, _, state = line.strip().rpartition(": ")
        if state in ("", "killed", "not checked"):
            continue
        if not matches(name, patterns):
            continue
        module, _, mangled = name.rpartition(".")
        function = mangled.rpartition("__mutmut_")[0].removeprefix("x_").replace("ǁ", ".")
        diff = mutmut("show", name).splitlines()
        was, now = (
            " ".join(one[1:].strip() for one in diff if one.startswith(f"{sign} ")) for sign in "-+"
        )
        keys.append((f"{module}.{function.removeprefix('x.')}", was, now))
    return keys


def explained() -> dict[Key, str]:
    """The survivors of the file, with the reason of each."""
    entries = tomllib.loads(KNOWN.read_text())["survivor"] if KNOWN.exists() else []
    return {(one["function"], one["was"], one["now"]): one["why"] for one in entries}


def write(known: dict[Key, str]) -> None:
    names = ("function", "was", "now", "why")
    entries = [
        "[[survivor]]\n"
        + "".join(
            f"{name} = {json.dumps(value, ensure_ascii=False)}\n"
            for name, value in zip(names, (*key, why), strict=True)
        )
        for key, why in sorted(known.items())
    ]
    KNOWN.write_text("\n".join(entries))


def main() -> int:
    arguments = sys.argv[1:]
    patterns = [one for one in arguments if one != "--write"]
    found = survivors(patterns)
    known = explained()
    missing = [key for key in found if key not in known or known[key] == UNEXPLAINED]
    killed = [key for key in known if key not in found and matches(key[0], patterns)]
    for key in missing:
        show("a survivor without a reason", key)
    for key in killed:
        show("explained, but it does not survive", key)
    print(f"{len(found)} survived, {len(missing)} of them without a reason in {KNOWN.name}")
    if "--write" in arguments:
        kept = {key: why for key, why in known.items() if key not in killed}
        write(kept | dict.fromkeys(missing, UNEXPLAINED))
    return bool(missing)


def show(what: str, key: Key) -> None:
    function, was, now = key
    print(f"{what}: {function}\n  - {was}\n  + {now}")


if __name__ == "__main__":
    sys.exit(main())
