"""The clients under test, installed by their ordinary package managers into `target/interop`.

`venv` holds the Python clients, `node` the JavaScript one and an authorization server. Each is
made once and again only when its list of pinned versions changes.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or HERE.parent / "target") / "interop"
VENV = TARGET / "venv"
NODE = TARGET / "node"
INSTALL_TIMEOUT_S = 300


def enter_venv() -> None:
    """Continues this very command inside the virtual environment, which is made if need be."""
    python = VENV / "bin" / "python"
    if Path(sys.prefix).resolve() == VENV.resolve():
        return
    if _outdated(VENV, [HERE / "requirements.txt"]):
        shutil.rmtree(VENV, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(VENV)])
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        _run([*pip, "-r", str(HERE / "requirements.txt")])
        _mark(VENV, [HERE / "requirements.txt"])
    os.execv(python, [str(python), *sys.argv])


def prepare_node() -> str | None:
    """Installs the JavaScript client; returns why not when Node.js is missing."""
    lists = [HERE / "package.json", HERE / "package-lock.json"]
    if not shutil.which("npm") or not shutil.which("node"):
        return "node or npm is not installed"
    if _outdated(NODE, lists):
        shutil.rmtree(NODE, ignore_errors=True)
        NODE.mkdir(parents=True)
        for file in lists:
            shutil.copy(file, NODE)
        _run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=NODE)
        _mark(NODE, lists)
    return None


def _fingerprint(files: list[Path]) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _outdated(folder: Path, files: list[Path]) -> bool:
    mark = folder / "installed"
    return not mark.exists() or mark.read_text() != _fingerprint(files)


def _mark(folder: Path, files: list[Path]) -> None:
    (folder / "installed").write_text(_fingerprint(files))


def _run(command: list[str], cwd: Path | None = None) -> None:
    """Runs an installer; its output appears only when it fails."""
    done = subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
    )
    if done.returncode != 0:
        sys.exit(f"interop: {' '.join(command)} failed:\n{done.stdout}")
