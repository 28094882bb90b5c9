"""python -m tests.fuzz TARGET [libFuzzer's options]: without end, led by coverage (needs the package atheris).

New inputs are kept in fuzz/TARGET; one that fails is written to fuzz/crash-*, and goes into the target's seeds.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fsdriver", "keyserver", "policy"]):
    from tests.fuzz.targets import SEEDS, TARGETS


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz TARGET [options]; targets: {', '.join(TARGETS)}")
    corpus = Path("fuzz", name)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *sys.argv[2:], "-artifact_prefix=fuzz/", str(corpus)], TARGETS[name])
    atheris.Fuzz()


main()
