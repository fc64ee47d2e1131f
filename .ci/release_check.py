"""Whether a release could be tagged now: `make release-check`. Needs no network, and changes nothing but dist/."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path.cwd()


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def version_of_metadata() -> str:
    configuration = configparser.RawConfigParser()
    configuration.read(ROOT / "setup.cfg")
    return configuration["metadata"]["version"]


def faults_of_the_checkout(version: str) -> list[str]:
    faults = []
    if run("git", "status", "--porcelain"):
        faults.append("The checkout has changes that are not committed.")
    if run("git", "tag", "--list", f"v{version}"):
        faults.append(f"The tag v{version} is there already: set the next version in setup.cfg.")
    changelog = (ROOT / "CHANGELOG.md").read_text()
    if not re.search(rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$", changelog, re.MULTILINE):
        faults.append(f'CHANGELOG.md has no heading "## {version} (year-month-day)".')
    return faults


def faults_of_the_distributions(version: str) -> list[str]:
    out = ROOT / "dist"
    for old in out.glob("django_sse_live-*"):
        old.unlink()
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out))
    sdist, wheel = out / f"django_sse_live-{version}.tar.gz", out / f"django_sse_live-{version}-py3-none-any.whl"
    run(sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel))
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    package = set(run("git", "ls-files", "django_sse_live").splitlines())
    return [f"The wheel lacks {path}." for path in sorted(package - in_wheel)] + [
        f"The sdist lacks {path}." for path in sorted(package - in_sdist)
    ]


def main() -> None:
    version = version_of_metadata()
    faults = faults_of_the_checkout(version) + faults_of_the_distributions(version)
    for fault in faults:
        print(f"missing: {fault}")
    if faults:
        sys.exit(1)
    print(f"{version} can be released: git tag -s v{version} -m 'django-sse-live {version}'")


if __name__ == "__main__":
    main()
