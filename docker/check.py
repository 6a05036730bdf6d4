"""Build an image on a Debian made here, and run it, without a container engine: `make image-check`.

In:  a kind (prep, train) and a lock; root, buildah, debootstrap, a Debian mirror, pip's global config.
Out: exit 0 if the image builds, is what it should be, and works in its strictest setting: read-only root file
     system, no network, no capabilities, no new privileges, a uid that it has never heard of, its command as
     PID 1. Exit 1 with what failed. Where a tool is missing: exit 0, and a line that says so.

The machine's certificates and pip's config are lent to the build and never copied into it. With
IMAGE_CHECK_DIR the storage and the base stay there for the next time; otherwise nothing stays.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
TOOLS = ("buildah", "debootstrap", "unshare")
BASE = "localhost/bcd-base"
DEFAULT_LOCK = {"prep": "gpu-cu13", "train": "train-gpu"}
FOLDERS = {"prep": ("data/in", "data/out"), "train": ("data/dataset", "data/run")}
"""What each image reads, and where it writes."""
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
OWNER, STRANGER = 1000, 54321
DEADLINE_S = 300.0
INTERRUPTED = 130

_INSIDE = """
root=$1 readonly=$2 writable=$3 uid=$4; shift 4
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777,size=64m tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=1777,nosuid,nodev,noexec tmpfs "$root/tmp"
mount --bind "$IN" "$root/$readonly"
mount -o remount,bind,ro "$root/$readonly"
mount --bind "$OUT" "$root/$writable"
exec chroot "$root" setpriv --reuid "$uid" --regid 0 --clear-groups --bounding-set=-all --inh-caps=-all \\
  --no-new-privs env -i "$@"
"""
"""What an engine does for --read-only --network none --cap-drop ALL, --tmpfs /tmp and two volumes."""


class CheckFailed(Exception):
    """The image is not what it should be."""


def say(*lines: str) -> None:
    """Lines of progress, at once."""
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def require(condition: bool, what: str) -> None:
    """Raise CheckFailed unless the condition holds; say what holds otherwise."""
    if not condition:
        raise CheckFailed(what)
    say(f"  ok: {what}")


@dataclass(frozen=True, slots=True)
class Buildah:
    """buildah with a storage of its own."""

    storage: Path

    def __call__(self, *words: str) -> str:
        """Run a command; its standard output. Raises CheckFailed with the end of what it said."""
        driver = os.environ.get("STORAGE_DRIVER", "vfs")
        place = (
            "--root",
            f"{self.storage}/root",
            "--runroot",
            f"{self.storage}/run",
            "--storage-driver",
            driver,
        )
        done = subprocess.run(
            ["buildah", *place, *words], capture_output=True, text=True, cwd=REPOSITORY, check=False
        )
        if done.returncode:
            raise CheckFailed(f"buildah {words[0]}: {(done.stdout + done.stderr)[-3000:]}")
        return done.stdout.strip()

    @contextmanager
    def container(self, image: str) -> Iterator[tuple[str, Path]]:
        """A container of an image, and its mounted root; gone afterwards."""
        name = self("from", image)
        try:
            yield name, Path(self("mount", name))
        finally:
            self("rm", name)


@dataclass(frozen=True, slots=True)
class Image:
    """What is checked: its kind, its lock, its root folder, its config."""

    kind: str
    lock: str
    root: Path
    environment: tuple[str, ...]

    def command(self, folders: tuple[Path, Path], uid: int, *words: str) -> list[str]:
        """The command line that runs `words` as PID 1 inside, with (read, written) folders mounted."""
        readonly, writable = FOLDERS[self.kind]
        spaces = ("--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child")
        lent = (f"IN={folders[0]}", f"OUT={folders[1]}")
        inner = ("sh", "-euc", _INSIDE, "sh", str(self.root), readonly, writable, str(uid))
        return ["env", *lent, "unshare", *spaces, *inner, *self.environment, *words]

    def run(self, folders: tuple[Path, Path], uid: int, *words: str) -> tuple[int, str]:
        """Exit code and output of a command inside."""
        done = subprocess.run(
            self.command(folders, uid, *words),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def works(self, folders: tuple[Path, Path], uid: int, *words: str) -> str:
        """Output of a command inside that has to exit with 0."""
        code, output = self.run(folders, uid, *words)
        if code:
            raise CheckFailed(f"`{' '.join(words)}` exits {code}:\n{output[-3000:]}")
        say(f"  ok: `{' '.join(words)[:60].strip()}` works for uid {uid}")
        return output


def make_base(buildah: Buildah) -> None:
    """Debian with Python and its venv module, by debootstrap, unless the storage has it."""
    if BASE in buildah("images", "--format", "{{.Name}}").split():
        return
    suite = os.environ.get("SUITE", "bookworm")
    say(f"debootstrap {suite}")
    with buildah.container("scratch") as (name, root):
        words = ("--variant=minbase", "--include=ca-certificates,python3,python3-venv", suite, str(root))
        subprocess.run(["debootstrap", *words], check=True, stdout=subprocess.DEVNULL)
        for leftover in (root / "var/cache/apt/archives", root / "var/lib/apt/lists"):
            shutil.rmtree(leftover)
            leftover.mkdir()
        buildah("commit", "--quiet", name, BASE)


def build(buildah: Buildah, kind: str, lock: str) -> str:
    """Build an image on the base; its name."""
    name = f"localhost/bcd-{kind}-{lock}"
    arguments = {"BASE": BASE, "LOCK": lock}
    if kind == "train":
        arguments["KERAS_BACKEND"] = "jax" if "jax" in lock else "tensorflow"
    lent = ["--volume", "/etc/ssl/certs:/etc/ssl/certs:ro"]
    if Path("/etc/pip.conf").is_file():
        lent += ["--secret", "id=pip.conf,src=/etc/pip.conf"]
    words = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    say(f"build {kind}.Dockerfile with requirements-{lock}.lock")
    started = time.monotonic()
    buildah("bud", "--isolation", "chroot", "--format", "docker", *lent, *words,
            "--file", f"docker/{kind}.Dockerfile", "--tag", name, ".")  # fmt: skip
    say(f"  built in {time.monotonic() - started:.0f} s")
    return name


def check_config(config: dict[str, object], kind: str) -> None:
    """What the image declares."""
    require(config.get("User") == f"{OWNER}:0", "runs as a user, not as root")
    require("Healthcheck" in config, "has a health check")
    require(config.get("StopSignal") == "SIGTERM", "is stopped by SIGTERM")
    volumes = config.get("Volumes")
    require(
        isinstance(volumes, dict) and set(volumes) == {f"/{name}" for name in FOLDERS[kind]},
        "has two volumes",
    )
    labels = config.get("Labels")
    require(isinstance(labels, dict) and "org.opencontainers.image.title" in labels, "has OCI labels")


def check_contents(root: Path, kind: str, certificates: str) -> None:
    """What the image must not carry beyond its base, and who owns what it writes to."""
    left = [name for name in ("opt/tools", "wheels", "src", "root/.cache") if (root / name).exists()]
    require(not left, f"carries nothing of the build {left or ''}")
    require(not list((root / "opt/bcd").rglob("site-packages/pip")), "has no pip in its environment")
    owner = (root / FOLDERS[kind][1]).stat()
    require(
        (owner.st_uid, owner.st_gid, owner.st_mode & 0o777) == (OWNER, 0, 0o775), "owns what it writes to"
    )
    require(not (root / "etc/pip.conf").exists(), "keeps no pip config")
    require(digest(root / CERTIFICATES) == certificates, "has the base's certificates and no others")


def folder(parent: Path, name: str, uid: int) -> Path:
    """A new folder that belongs to a uid."""
    path = parent / name
    path.mkdir()
    os.chown(path, uid, 0)
    return path


def digest(path: Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_prep(image: Image, work: Path) -> None:
    """Phantoms through the CPU path: whole, interrupted and resumed, refused without a GPU."""
    empty, phantoms = folder(work, "empty", OWNER), folder(work, "phantoms", OWNER)
    image.works((empty, phantoms), OWNER, "bcd-bench", "phantom", "/data/out/set",
                "--patients", "4", "--seed", "1", "--size-factor", "0.25")  # fmt: skip
    whole, resumed = folder(work, "whole", OWNER), folder(work, "resumed", STRANGER)
    image.works((phantoms, whole), OWNER, "bcd-prep", "--cpu", "--shard-images", "2")
    image.works((phantoms, whole), OWNER, "bcd-prep", "verify", "/data/out")
    command = image.command(
        (phantoms, resumed), STRANGER, "bcd-prep", "--cpu", "--shard-images", "2", "--workers", "1"
    )
    require(interrupted(command, resumed) == INTERRUPTED, "as PID 1 it answers SIGTERM by exit 130")
    require(not (resumed / "manifest.json").exists(), "and leaves no manifest")
    output = image.works((phantoms, resumed), STRANGER, "bcd-prep", "--cpu", "--shard-images", "2")
    say(*(f"  {line}" for line in output.splitlines() if "DICOM found" in line))
    require(
        digest(whole / "manifest.json") == digest(resumed / "manifest.json"), "resumed = whole, to the byte"
    )
    code, output = image.run((phantoms, whole), STRANGER, "bcd-prep", "--gpu")
    require(code == 2 and "GPU driver" in output, "without a driver, --gpu is refused with the reason")


def interrupted(command: Sequence[str], out: Path) -> int:
    """Start, send SIGTERM to PID 1 inside once a shard is there; the exit code."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + DEADLINE_S
    while (
        not list(out.glob("fold=*/part-*.tfrecord"))
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for child in children.read_text().split() if process.poll() is None else ():
        os.kill(int(child), signal.SIGTERM)
    return process.wait(timeout=DEADLINE_S)


def check_train(image: Image, work: Path) -> None:
    """Phantoms → dataset → trained run → export and predictions, each step's folder read-only to the next."""
    empty, phantoms = folder(work, "empty", OWNER), folder(work, "phantoms", OWNER)
    image.works((empty, phantoms), OWNER, "bcd-bench", "phantom", "/data/run/set",
                "--patients", "5", "--seed", "1", "--size-factor", "0.1")  # fmt: skip
    dataset, run = folder(work, "dataset", OWNER), folder(work, "run", STRANGER)
    image.works((phantoms, dataset), OWNER, "bcd-prep", "run", "/data/dataset/set",
                "--out", "/data/run", "--size", "64x32", "--workers", "1")  # fmt: skip
    small = ("--model", "resnet_tiny", "--weights", "none", "--epochs", "1")
    image.works((dataset, run), STRANGER, "bcd-train", "fit", *small)
    require((run / "fold=0/model.keras").exists() and (run / "report.html").exists(), "and leaves its files")
    answers = folder(work, "answers", STRANGER)
    shutil.copytree(run, dataset / "of")
    image.works((dataset, answers), STRANGER, "bcd-train", "export", "/data/dataset/of", "--format", "onnx",
                "--out", "/data/run/model.onnx")  # fmt: skip
    shutil.copytree(run, phantoms / "of")
    asked = ("/data/dataset/of", "/data/dataset/set/test_images", "--submission")
    image.works(
        (phantoms, answers), STRANGER, "bcd-train", "predict", *asked, "--out", "/data/run/answers.csv"
    )
    lines = (answers / "answers.csv").read_text().splitlines()
    require(lines[0] == "prediction_id,cancer" and len(lines) == 3, "and a submission of two breasts")


def check(kind: str, lock: str, storage: Path) -> None:
    """Build one image and try it."""
    buildah = Buildah(storage)
    make_base(buildah)
    name = build(buildah, kind, lock)
    config = json.loads(buildah("inspect", "--type", "image", name))["Docker"]["config"]
    check_config(config, kind)
    with buildah.container(BASE) as (_, base):
        certificates = digest(base / CERTIFICATES)
    with buildah.container(name) as (_, root), tempfile.TemporaryDirectory(prefix="image-check-") as work:
        os.chmod(work, 0o755)
        image = Image(kind, lock, root, tuple(config["Env"]))
        check_contents(root, kind, certificates)
        empty = folder(Path(work), "nothing", OWNER)
        image.works((empty, empty), STRANGER, *config["Healthcheck"]["Test"][1:])
        (check_prep if kind == "prep" else check_train)(image, Path(work))
        for part in (".", "opt/bcd"):
            size = subprocess.run(
                ["du", "-sm", root / part], capture_output=True, text=True, check=True
            ).stdout
            say(f"  /{part.strip('.')}: {size.split()[0]} MiB")


def main() -> int:
    """Parse, see what is missing, check, tidy up."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=FOLDERS)
    parser.add_argument("lock", nargs="?", help="gpu-cu13, gpu-cu12, prep; train-gpu, train-jax-gpu")
    given = parser.parse_args()
    missing = [tool for tool in TOOLS if shutil.which(tool) is None] + ["root"] * (os.geteuid() != 0)
    if missing:
        say(f"image-check: no image was built, for want of {', '.join(missing)}")
        return 0
    kept = os.environ.get("IMAGE_CHECK_DIR")
    storage = Path(kept or tempfile.mkdtemp(prefix="image-check-storage-"))
    try:
        check(given.kind, given.lock or DEFAULT_LOCK[given.kind], storage)
    except CheckFailed as error:
        say(f"image-check FAILED: {error}")
        return 1
    finally:
        if kept is None:
            Buildah(storage)("rmi", "--all", "--force")
            shutil.rmtree(storage)
    say("image-check: all is well")
    return 0


if __name__ == "__main__":
    sys.exit(main())
