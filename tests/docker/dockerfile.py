"""A reader of Dockerfiles, and the rules that ours keep, in the manner of hadolint.

In:  a Dockerfile's text, and the folder it is built from.
Out: findings, one line each; none if all is well.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name, its flags (--from=build …), and the rest on one line."""

    name: str
    flags: tuple[str, ...]
    rest: str

    def words(self) -> list[str]:
        return json.loads(self.rest) if self.rest.startswith("[") else shlex.split(self.rest)


@dataclass(frozen=True)
class Dockerfile:
    """Instructions by stage; those before the first FROM are stage 0."""

    stages: tuple[tuple[Instruction, ...], ...]

    def all(self, *names: str) -> Iterator[Instruction]:
        return (each for stage in self.stages for each in stage if each.name in names)

    def last(self, *names: str) -> list[Instruction]:
        return [each for each in self.stages[-1] if each.name in names]

    def arguments(self) -> dict[str, str]:
        """Defaults of ARG, by name."""
        pairs = (each.rest.partition("=") for each in self.all("ARG"))
        return {name: default for name, _, default in pairs}

    def environment(self) -> dict[str, str]:
        """ENV of the last stage, as written."""
        pairs = (word.partition("=") for each in self.last("ENV") for word in each.words())
        return {name: value for name, _, value in pairs}


def parse(text: str) -> Dockerfile:
    """Join continued lines, drop comments, split into stages."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    stages: list[list[Instruction]] = [[]]
    for line in filter(str.strip, joined.splitlines()):
        name, _, rest = line.strip().partition(" ")
        words = rest.split()
        flags = tuple(
            word for index, word in enumerate(words) if all(w.startswith("--") for w in words[: index + 1])
        )
        if name.upper() == "FROM":
            stages.append([])
        plain = rest.strip()
        for flag in flags:
            plain = plain.removeprefix(flag).strip()
        stages[-1].append(Instruction(name.upper(), flags, plain))
    return Dockerfile(tuple(map(tuple, stages)))


def filled(text: str, values: Mapping[str, str]) -> str:
    """Text with its ${NAME} replaced."""
    return re.sub(r"\$\{(\w+)\}", lambda match: values.get(match[1], match[0]), text)


def base_is_an_argument(file: Dockerfile, _: Path) -> Iterator[str]:
    given = {each.rest.partition("=")[0] for each in file.stages[0] if each.name == "ARG"}
    for each in file.all("FROM"):
        image = each.rest.split()[0]
        if not (match := re.fullmatch(r"\$\{(\w+)\}", image)) or match[1] not in given:
            yield f"FROM {image}: the base is to be an ARG"


def base_has_a_tag(file: Dockerfile, _: Path) -> Iterator[str]:
    for each in file.all("FROM"):
        image = filled(each.rest.split()[0], file.arguments())
        tag = image.rpartition("/")[2].partition(":")[2]
        if "@sha256:" not in image and tag in ("", "latest"):
            yield f"FROM {image}: no version"


def user_is_not_root(file: Dockerfile, _: Path) -> Iterator[str]:
    users = [filled(each.rest, file.arguments()) for each in file.last("USER")]
    if not users or users[-1].partition(":")[0] in ("0", "root"):
        yield f"USER {users[-1] if users else 'missing'}: runs as root"
    elif not users[-1].partition(":")[0].isdigit():
        yield f"USER {users[-1]}: not a number, so that an orchestrator cannot see that it is not root"


def has_a_health_check(file: Dockerfile, _: Path) -> Iterator[str]:
    checks = file.last("HEALTHCHECK")
    if len(checks) != 1 or "CMD [" not in checks[0].rest:
        yield "HEALTHCHECK: exactly one, in exec form"


def command_is_exec_form(file: Dockerfile, _: Path) -> Iterator[str]:
    for each in file.last("CMD", "ENTRYPOINT"):
        if not each.rest.startswith("["):
            yield f"{each.name} {each.rest}: a shell would be PID 1 and swallow SIGTERM"
    if not file.last("CMD"):
        yield "CMD: missing"


def nothing_is_fetched(file: Dockerfile, _: Path) -> Iterator[str]:
    for each in file.all("ADD"):
        yield f"ADD {each.rest}: use COPY"
    for each in file.all("RUN"):
        if re.search(r"\b(curl|wget|git clone)\b|https?://", each.rest):
            yield f"RUN {each.rest}: network beyond the package index"


def pip_checks_hashes(file: Dockerfile, _: Path) -> Iterator[str]:
    for each in file.all("RUN"):
        for command in re.split(r"&&|;|\|\|", each.rest):
            if re.search(r"\bpip\b.* install\b", command) and not re.search(
                r"--require-hashes|--no-deps --no-index", command
            ):
                yield f"RUN {command.strip()}: not from a lock with hashes"
    if any("pip" in each.rest for each in file.last("RUN")):
        yield "RUN pip in the last stage: its layers stay"


def apt_leaves_nothing(file: Dockerfile, _: Path) -> Iterator[str]:
    for each in file.all("RUN"):
        if "apt-get install" in each.rest and "--no-install-recommends" not in each.rest:
            yield f"RUN {each.rest}: without --no-install-recommends"
        if (
            re.search(r"apt-get (install|update)", each.rest)
            and "rm -rf /var/lib/apt/lists/*" not in each.rest
        ):
            yield f"RUN {each.rest}: leaves apt's lists"


def sources_exist(file: Dockerfile, root: Path) -> Iterator[str]:
    for each in file.all("COPY"):
        if any(flag.startswith("--from=") for flag in each.flags):
            continue
        for source in each.words()[:-1]:
            if not list(root.glob(filled(source, file.arguments()))):
                yield f"COPY {source}: not in the repository"


def stages_exist(file: Dockerfile, _: Path) -> Iterator[str]:
    names = {each.rest.split()[-1] for each in file.all("FROM") if " AS " in each.rest.upper()}
    for each in file.all("COPY"):
        for flag in each.flags:
            if flag.startswith("--from=") and flag.removeprefix("--from=") not in names:
                yield f"COPY {flag}: no such stage"


def writes_to_tmp_only(file: Dockerfile, _: Path) -> Iterator[str]:
    environment = file.environment()
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR", "CUDA_CACHE_PATH"):
        value = environment.get(name, "")
        if value != "/tmp" and not value.startswith("/tmp/"):
            yield f"ENV {name}={value}: not under /tmp, so a read-only root file system fails"


def is_labelled(file: Dockerfile, _: Path) -> Iterator[str]:
    labels = {word.partition("=")[0] for each in file.last("LABEL") for word in each.words()}
    for name in ("title", "description", "licenses", "version", "revision"):
        if f"org.opencontainers.image.{name}" not in labels:
            yield f"LABEL org.opencontainers.image.{name}: missing"


Rule = Callable[[Dockerfile, Path], Iterator[str]]
RULES: tuple[Rule, ...] = (
    base_is_an_argument,
    base_has_a_tag,
    user_is_not_root,
    has_a_health_check,
    command_is_exec_form,
    nothing_is_fetched,
    pip_checks_hashes,
    apt_leaves_nothing,
    sources_exist,
    stages_exist,
    writes_to_tmp_only,
    is_labelled,
)


def findings(text: str, root: Path) -> list[str]:
    """What the rules have to say about a Dockerfile."""
    file = parse(text)
    return [f"{rule.__name__}: {finding}" for rule in RULES for finding in rule(file, root)]
