"""JSON results → tables in Markdown and plots in SVG, ready for README and docs/benchmarks.md.

In:  a folder of Results.
Out: `benchmarks.md` and one SVG per result. A table says what its figures are: median (least to most).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench import compare, plots, results, stages
from bench.compare import OURS, Comparison, Verdict
from bench.measure import Measurement, Spread
from bench.results import Result
from preprocess.errors import UsageError

_STAGES = ("parse", "decode", "roi", "render", "encode", "write")


def write(folder: Path, out: Path) -> tuple[Path, ...]:
    """Write the report of every JSON file in `folder`. Raises UsageError where there is none."""
    paths = [path for path in sorted(folder.glob("*.json")) if results.is_result(path)]
    if not paths:
        raise UsageError(f"no results in {folder.name}")
    out.mkdir(parents=True, exist_ok=True)
    written, sections = [], []
    for path in paths:
        result = results.load(path)
        drawing = out / f"{path.stem}.svg"
        drawing.write_text(plot(result), encoding="utf-8")
        written.append(drawing)
        sections.append(f"{table(result)}\n\n![{result.label}]({drawing.name})\n")
    text = out / "benchmarks.md"
    text.write_text("\n".join(sections), encoding="utf-8")
    return (text, *written)


def table(result: Result) -> str:
    """One result as a Markdown section."""
    tables = {
        "peers": _peers, "prep": _prep, "decode": _decode, "scale": _scale, "feed": _feed, "train": _train,
        "bytes": _bytes,
    }  # fmt: skip
    rows = tables[result.kind](result)
    return "\n".join((f"### {result.kind}: {result.label}", "", *rows, "", *_facts(result)))


def plot(result: Result) -> str:
    """One result as an SVG drawing."""
    if result.kind == "prep":
        roof = stages.roof(*result.measurements)
        bars = [("disk", roof.disk), ("decode", roof.decode), ("everything else", roof.rest)]
        bars += [("limit", roof.limit), ("reached", roof.whole)]
        title = f"prep {result.label}: images per second of one core, log scale"
        return plots.bars(title, bars, logarithmic=True)
    if result.kind == "scale":
        bars = [(one.name, one.items / one.wall.median) for one in result.measurements]
        bars += [(f"{plan.inputs:,} planned", plan.inputs / plan.seconds) for plan in result.planned]
        return plots.bars("scale: images per second", bars)
    if result.kind == "bytes":
        shares = [(one.name, 100 * one.bytes_read / max(one.file_bytes, 1)) for one in result.read]
        return plots.bars(f"{result.label}: per cent of the files' bytes that are read", shares)
    ran = [one for one in result.measurements if one.passes]
    bars = [(one.name, one.cpu.median * 1000 / one.items) for one in ran]
    return plots.bars(f"{result.kind} {result.label}: processor ms per image", bars)


def _facts(result: Result) -> Iterator[str]:
    facts = result.facts
    packages = ", ".join(f"{name} {number}" for name, number in facts.versions if number)
    changed = ", code changed" if facts.changed else ""
    before, after = (" ".join(map(str, load)) for load in (result.load_before, result.load_after))
    yield f"`{facts.command}`"
    yield ""
    yield f"{facts.cpu}, {facts.cores} cores, {result.cores} used. Load average {before}, then {after}."
    yield f"Commit {facts.commit}{changed}, {facts.started}; Python {facts.python}, {packages}."


def _peers(result: Result) -> Iterator[str]:
    ours = next(one for one in result.measurements if one.name == OURS)
    best = compare.best_peer(Comparison(result.measurements, result.verdicts))
    verdicts = {verdict.name: verdict for verdict in result.verdicts}
    yield "| who | ms per image | CPU ms | ours faster | by CPU | stored | PSNR dB (least) | largest error |"
    yield "|---|---|---|---|---|---|---|---|"
    for one in result.measurements:
        yield _peer_row(one, ours, verdicts[one.name], one is best)


def _peer_row(one: Measurement, ours: Measurement, verdict: Verdict, best: bool) -> str:
    name = f"**{one.name}**" if best else one.name
    if not one.passes:
        return f"| {name} | {one.note} | | | | | | |"
    if not verdict.stored:
        return f"| {name} | {_refused(verdict)} | | | | 0 of {verdict.files} | | |"
    cpu = one.cpu.median * 1000 / one.items
    times = less = "—"
    if one is not ours and verdict.whole:
        times, less = _times(ours.times_faster_than(one)), _times(ours.times_less_cpu_than(one))
    wrong = f", {verdict.polarity_wrong} inverted" if verdict.polarity_wrong else ""
    stored = f"{verdict.stored} of {verdict.files}{wrong}"
    quality = f"{verdict.psnr_median_db} ({verdict.psnr_least_db}) | {verdict.error_most}"
    return f"| {name} | {_ms(one.milliseconds)} | {cpu:.0f} | {times} | {less} | {stored} | {quality} |"


def _bytes(result: Result) -> Iterator[str]:
    yield "| files → prepared | files | read in part | MB | MB read | share | same outcome |"
    yield "|---|---|---|---|---|---|---|"
    for one in result.read:
        share = f"{one.bytes_read / max(one.file_bytes, 1):.1%}"
        size = f"{one.file_bytes / 1e6:.1f} | {one.bytes_read / 1e6:.1f} | {share}"
        yield f"| {one.name} | {one.files} | {one.partly} | {size} | {one.same} of {one.files} |"


def _feed(result: Result) -> Iterator[str]:
    ours = result.measurements[0]
    yield "| who | images/s | CPU ms per image | ours faster | by CPU | consumer waits | peak memory |"
    yield "|---|---|---|---|---|---|---|"
    for one in result.measurements:
        if not one.passes:
            yield f"| {one.name} | {one.note} | | | | | |"
            continue
        rate, cpu = one.items / one.wall.median, one.cpu.median * 1000 / one.items
        faster = less = "—"
        if one is not ours and ours.passes:
            faster, less = _times(ours.times_faster_than(one)), _times(ours.times_less_cpu_than(one))
        waits = median(dict(each.parts)["wait"] / each.wall_s for each in one.passes)
        memory = f"{one.peak_bytes / 1e6:.0f} MB"
        yield f"| {one.name} | {rate:.1f} | {cpu:.1f} | {faster} | {less} | {waits:.0%} | {memory} |"


def _train(result: Result) -> Iterator[str]:
    yield "| batches | images/s | ms per image | CPU ms | without a batch | peak memory | TFLOP/s |"
    yield "|---|---|---|---|---|---|---|"
    for one in result.measurements:
        rate, cpu = one.items / one.wall.median, one.cpu.median * 1000 / one.items
        waits = median(dict(each.parts)["wait"] / each.wall_s for each in one.passes)
        memory = f"{one.peak_bytes / 1e6:.0f} MB"
        done = f"{rate * one.flops / 1e12:.3g}" if one.flops else "—"
        times = f"{rate:.2f} | {_ms(one.milliseconds)} | {cpu:.0f} | {waits:.1%}"
        yield f"| {one.name} | {times} | {memory} | {done} |"


def _refused(verdict: Verdict) -> str:
    return "refuses: " + ", ".join(f"{name} × {count}" for name, count in verdict.refused)


def _prep(result: Result) -> Iterator[str]:
    roof, whole = stages.roof(*result.measurements), result.measurements[2]
    yield "| | disk | decode | everything else | limit | reached |"
    yield "|---|---|---|---|---|---|"
    rates = (roof.disk, roof.decode, roof.rest, roof.limit, roof.whole)
    yield "| images per second of one core | " + " | ".join(f"{rate:.1f}" for rate in rates) + " |"
    yield ""
    yield "| ms per image | " + " | ".join(_STAGES) + " | all |"
    yield "|---|" + "---|" * (len(_STAGES) + 1)
    parts = " | ".join(f"{whole.part(name):.1f}" for name in _STAGES)
    yield f"| wall | {parts} | {_ms(whole.milliseconds)} |"
    yield ""
    cpu = [one.cpu.median * 1000 / one.items for one in result.measurements]
    rest = cpu[2] - cpu[1] - cpu[0]
    spent = f"decoding {cpu[1]:.0f}, reading {cpu[0]:.1f}, everything else {rest:.0f}"
    yield f"CPU per image: {cpu[2]:.0f} ms: {spent}."


def _decode(result: Result) -> Iterator[str]:
    yield "| syntax and level | files | ms per image | CPU ms | × level 0 by CPU |"
    yield "|---|---|---|---|---|"
    full: Measurement | None = None
    for one in result.measurements:
        full = one if one.name.endswith(" level 0") else full
        cpu = one.cpu.median * 1000 / one.items
        times = "1" if full is None or one is full else _times(one.times_less_cpu_than(full))
        yield f"| {one.name} | {one.items} | {_ms(one.milliseconds)} | {cpu:.0f} | {times} |"


def _scale(result: Result) -> Iterator[str]:
    first = result.measurements[0] if result.measurements else None
    if result.measurements:
        yield "| workers | images/s | speed-up | largest process, MB |"
        yield "|---|---|---|---|"
    for one in result.measurements:
        times = "1" if one is first or first is None else _times(one.times_faster_than(first))
        rate = one.items / one.wall.median
        yield f"| {one.name.split()[0]} | {rate:.2f} | {times} | {one.peak_bytes / 1e6:.0f} |"
    if result.planned:
        yield ""
        yield "| inputs planned (--dry-run) | s | inputs/s | largest process, MB |"
        yield "|---|---|---|---|"
    for plan in result.planned:
        rate = plan.inputs / plan.seconds
        yield f"| {plan.inputs:,} | {plan.seconds:.1f} | {rate:.0f} | {plan.peak_bytes / 1e6:.0f} |"


def _ms(spread: Spread) -> str:
    return f"{spread.median:.0f} ({spread.low:.0f}–{spread.high:.0f})"


def _times(spread: Spread) -> str:
    return f"{spread.median:.2f}× ({spread.low:.2f}–{spread.high:.2f})"
